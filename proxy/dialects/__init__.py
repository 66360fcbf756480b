"""How the bodies of one API are read and written, one file for each route or provider."""

"""The routes of the inference API: a module for each says how its requests and answers are read."""

"""HTTP/1.1 as every port of this house speaks it; nothing here knows what is asked or answered."""

"""What control asks the database; one module for each kind of thing, the tables on one page.

Every function and class works on the caller's connection and transaction; none commits.
"""

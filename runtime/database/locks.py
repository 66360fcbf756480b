"""The numbers of PostgreSQL's advisory locks."""

from sqlalchemy import ColumnElement, func


def number(name: str) -> ColumnElement[int]:
    """Return the number of the lock `name`: each schema has its own, for each may be an installation."""
    schema = func.nullif(func.concat(" of ", func.current_schema()), " of public")  # as before schemas were told apart
    return func.hashtextextended(func.concat(f"tollgate {name}", schema), 0)

"""What the integration tests stand on: a PostgreSQL, workers, web servers, clients. conftest.py hands them out."""

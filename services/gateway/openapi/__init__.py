"""OpenAPI 3.1 from the contracts: their types, their comments and their validation rules."""

"""JSON, query and path onto messages and messages onto JSON, by closures that are compiled once per descriptor."""

"""Work that is handed from role to role, along templates."""

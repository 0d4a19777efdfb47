"""From a JSON schema to a grammar in GBNF whose texts are all valid by the schema."""

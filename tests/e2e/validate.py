"""Checks a JSON document against one of the image specification's schemas: validate.py SCHEMA DOCUMENT

The schemas refer to each other by file name but call themselves by web addresses; those are dropped, so that nothing is
looked for on the network.
"""
import json
import pathlib
import sys

import jsonschema


def without_ids(node):
    if isinstance(node, dict):
        return {key: without_ids(value) for key, value in node.items() if not (key == "id" and isinstance(value, str))}
    if isinstance(node, list):
        return [without_ids(item) for item in node]
    return node


schema_path = pathlib.Path(sys.argv[1]).resolve()
schemas = {path.as_uri(): without_ids(json.loads(path.read_text())) for path in schema_path.parent.glob("*.json")}
schema = schemas[schema_path.as_uri()]
document = json.loads(pathlib.Path(sys.argv[2]).read_text())
resolver = jsonschema.RefResolver(schema_path.as_uri(), schema, store=schemas)
errors = list(jsonschema.Draft4Validator(schema, resolver=resolver).iter_errors(document))
for error in errors:
    print(f"{sys.argv[2]}: /{'/'.join(map(str, error.path))}: {error.message}", file=sys.stderr)
sys.exit(bool(errors))

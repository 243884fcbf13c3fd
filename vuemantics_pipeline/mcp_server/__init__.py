"""What an AI assistant reaches over the Model Context Protocol: tools, resources and prompts.

Every query is one of `status/`, every change one of `ledger/`. In here are their descriptions for
a model, the schemas of what they return, and the texts that keep users' words apart from ours.
Needs the extra `mcp`.
"""

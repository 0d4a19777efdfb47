"""``python -m llm_router_mw.cli``: the command where no script was installed."""

from llm_router_mw.cli.main import main

main(prog_name="llm-router-mw")

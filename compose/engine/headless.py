"""Starts a part of an engine that spans hosts and does not lead it: what `vllm serve --headless` does.

The server's own module (vllm.entrypoints.openai.api_server) ignores --headless and would start a second server. The
`vllm` command itself wants a distribution of that name, which builds for the CPU do not have.
"""

from __future__ import annotations


def main() -> None:
    """As vllm/entrypoints/launchers/api_server/entry.py begins, then the command `serve` of 0.32.0."""
    # ruff: noqa: PLC0415  vLLM's workers import this file again, and nothing of this
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args()
    validate_parsed_serve_args(arguments)
    ServeSubcommand.cmd(arguments)


if __name__ == "__main__":
    main()

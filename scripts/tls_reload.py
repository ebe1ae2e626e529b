#!/usr/bin/env python3
"""Show clients the certificate that the stack file names now, such as a renewed one. No stream is dropped."""

from __future__ import annotations

import argparse

from stack import adjust, certificates, console, inputs
from stack.config.load import load_config
from stack.docker_host import connect
from stack.locks import only_one


def main() -> int:
    epilog = (
        "example: scripts/tls_reload.py stack.yaml; as the hook of an ACME client:"
        " certbot renew --deploy-hook 'make -C /srv/vllm-onprem tls-reload'"
    )
    parser = argparse.ArgumentParser(description=__doc__, epilog=epilog)
    inputs.add_arguments(parser)
    arguments = parser.parse_args()
    gateway = load_config(arguments.stack, str(arguments.stack)).gateway
    certificates.check_own(gateway, inputs.ROOT, str(arguments.stack))
    place, client = inputs.place(arguments), connect()
    with only_one(place.state):
        image = adjust.applied(place.live).images["nginx"]
        name = adjust.provide_certificate(place.state, gateway, inputs.ROOT, image, client)
        done = adjust.adjust(place.project, place.state, inputs.ROOT, client, adjust.with_certificate(name))
        certificates.keep_only(place.state, name)
    print(f"nginx shows the certificate {name}." if done else "nginx shows this certificate already.")
    return 0


if __name__ == "__main__":
    console.run(main)

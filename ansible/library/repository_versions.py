#!/usr/bin/python
"""Which versions of some packages a repository offers, read from its index without any package manager."""

from __future__ import annotations

import gzip
import io
import lzma
import re
from xml.etree import ElementTree

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: repository_versions
short_description: Read which versions a repository offers
description:
  - Reads the indexes of apt and dnf repositories and lists the versions of the packages asked for. Changes nothing.
options:
  repositories:
    description: Each has C(name), C(type) (apt or dnf), C(url), and for apt C(suite) and C(components).
    type: list
    elements: dict
    required: true
  packages:
    description: Names to look for.
    type: list
    elements: str
    required: true
  architecture:
    description: Debian's name of the architecture.
    type: str
    default: amd64
author: vllm-onprem
"""
EXAMPLES = r"""
- name: Look into NVIDIA's repository
  repository_versions:
    repositories: [{name: cuda, type: apt, url: "https://mirror.example.org/cuda", suite: "./", components: []}]
    packages: [nvidia-driver-cuda]
  register: __offered
"""
RETURN = r"""
versions:
  description: Versions by package, as the indexes list them.
  type: dict
  returned: always
problems:
  description: Repositories that could not be read, and why.
  type: list
  elements: str
  returned: always
"""


def apt_versions(text, wanted):
    """{name: [versions]} of a Packages file."""
    found = {}
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"(?m)^(Package|Version): (.+)$", stanza))
        if fields.get("Package") in wanted and "Version" in fields:
            found.setdefault(fields["Package"], []).append(fields["Version"].strip())
    return found


def dnf_versions(text, wanted):
    """{name: [versions]} of a primary.xml: epoch:version-release, the epoch left out where it is 0."""
    found = {}
    space = "{http://linux.duke.edu/metadata/common}"
    for package in ElementTree.fromstring(text).iter(space + "package"):
        name = package.findtext(space + "name")
        version = package.find(space + "version")
        if name in wanted and version is not None:
            epoch = "" if version.get("epoch") in (None, "0") else version.get("epoch") + ":"
            found.setdefault(name, []).append(epoch + version.get("ver") + "-" + version.get("rel"))
    return found


def primary_location(text):
    """Path of the primary index, from a repomd.xml."""
    space = "{http://linux.duke.edu/metadata/repo}"
    for data in ElementTree.fromstring(text).iter(space + "data"):
        if data.get("type") == "primary":
            return data.find(space + "location").get("href")
    raise ValueError("repomd.xml names no primary index")


def unpack(name, data):
    """Text of an index, by the ending of its name."""
    if name.endswith(".gz"):
        data = gzip.GzipFile(fileobj=io.BytesIO(data)).read()
    elif name.endswith(".xz"):
        data = lzma.decompress(data)
    return data.decode(errors="replace")


def fetch(url):
    return open_url(url, timeout=60).read()


def index_names(repository, architecture):
    """Folders of an apt repository that hold an index: one each component, one of a flat repository."""
    url, suite = repository["url"].rstrip("/"), repository["suite"]
    if suite.endswith("/"):  # flat, as NVIDIA's are
        return [(url + "/" + suite.strip("./")).rstrip("/")]
    return [
        "/".join((url, "dists", suite, component, "binary-" + architecture)) for component in repository["components"]
    ]


def read_apt(repository, wanted, architecture):
    found = {}
    for folder in index_names(repository, architecture):
        error = None
        for name in ("Packages.xz", "Packages.gz", "Packages"):
            try:
                text = unpack(name, fetch(folder + "/" + name))
                break
            except Exception as reason:
                error = reason
        else:
            raise ValueError(f"no index under {folder} ({error})")
        for package, versions in apt_versions(text, wanted).items():
            found.setdefault(package, []).extend(versions)
    return found


def read_dnf(repository, wanted):
    url = repository["url"].rstrip("/")
    name = primary_location(unpack("", fetch(url + "/repodata/repomd.xml")))
    return dnf_versions(unpack(name, fetch(url + "/" + name)), wanted)


def main():
    module = AnsibleModule(
        {
            "repositories": {"type": "list", "elements": "dict", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
            "architecture": {"type": "str", "default": "amd64"},
        },
        supports_check_mode=True,
    )
    wanted, versions, problems = set(module.params["packages"]), {}, []
    for repository in module.params["repositories"]:
        try:
            if repository["type"] == "apt":
                found = read_apt(repository, wanted, module.params["architecture"])
            else:
                found = read_dnf(repository, wanted)
        except Exception as reason:
            problems.append(f"repository {repository['name']} ({repository['url']}): {reason}")
            continue
        for package, offered in found.items():
            versions.setdefault(package, []).extend(offered)
    module.exit_json(changed=False, versions=versions, problems=problems)


if __name__ == "__main__":
    main()

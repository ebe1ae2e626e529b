"""Programs that run where a vLLM is installed: in a container of its image, or in a throw-away environment.

The folder is mounted, or copied, as a whole: it needs nothing but vLLM and itself.
"""

"""The library behind the scripts: stack.yaml -> StackConfig -> Plan -> build/ -> applied -> verified."""

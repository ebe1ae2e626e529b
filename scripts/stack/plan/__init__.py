"""StackConfig + host -> Plan. Pure: the same input gives the same plan, and nothing is touched."""

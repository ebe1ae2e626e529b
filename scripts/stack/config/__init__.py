"""stack.yaml -> StackConfig: frozen, typed, validated. stack.example.yaml documents every key."""

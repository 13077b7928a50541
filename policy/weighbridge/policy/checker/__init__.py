"""The static checker: ``syntax`` reads the engine's tree, ``scope`` resolves names, ``clauses`` looks at one rule.

``check`` puts them together and lists every check; ``functions`` says which builtins there are.
"""

"""What ``weighbridge baseline`` does with recorded sessions: runs taken out, profiles fitted, judged and compared.

Everything else judges by profiles, and none of it imports this package: fitting, statistics over runs and figures are
for owners of baselines, and no session waits for them.
"""

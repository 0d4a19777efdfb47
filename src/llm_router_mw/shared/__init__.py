"""One router for several web processes: it lives in a host process of its own.

==================================  ============================================================
plan, address                       what the router is made of; where those who share it meet
messages                            the language between a web process and the host
meeting, call, peer, lock           a web process finds its host, or has one started
launch, order, starter              what the one who starts a host and the host say to each other
__main__, host_process, host_log    the host as a process
seat, card, hosts                   how others find it; all hosts of a user
host, greeting, drain               who is let in, how long the host stays, how it makes way
session, verbs, relay, failures     one web process at the host: what it asks for and holds
outflow, news                       what is sent to it, and what all are told unasked
remote, mirror                      the router of a web process; what it knows without asking
keeper, link, question, backoff     its connection: asks, waits, and meets the next host
remote_lease, hold, remote_stream   what outlives the host: a lease, and an answer not yet begun
==================================  ============================================================
"""

"""The report: a session as one HTML file for people who have never heard of a TPM.

It is made of a bundle that was verified, or says in its first line what failed; it verifies nothing by itself. Each
text of a bundle is a text here too: escaped where it is put in, never markup. No script, nothing is fetched, and the
same bundle gives the same bytes. What each part means: ``docs/report.md``.
"""

"""The routes behind the two hot ones, as typed handlers from which the OpenAPI document is made.

A handler reads, and puts an answer together; what a parameter may be is said in `bcdb.http.params`.
"""

//! What is wrong with the rows of one database, compared with its catalog.

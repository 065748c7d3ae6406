drop table document;
drop table leader;

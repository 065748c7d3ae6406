drop table errand;
drop table operation_event;
drop table operation_database;
drop table operation;

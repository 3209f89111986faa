CREATE TABLE c (id int, word text);
COPY c FROM STDIN;
1	one
2	\N
3	tab\there
\.
COPY c (id, word) FROM STDIN WITH (FORMAT csv, HEADER);
id,word
4,"four, with a comma"
5,
\.
COPY c TO STDOUT;
COPY c (word, id) TO STDOUT WITH (FORMAT csv, HEADER, NULL 'null');
COPY (SELECT id, id * 2 FROM c WHERE id < 3 ORDER BY id) TO STDOUT WITH (DELIMITER '|');
COPY c FROM STDIN;
not a number	x
\.
COPY c FROM STDIN;
7
\.
SELECT count(*) FROM c;
BEGIN;
COPY c FROM STDIN;
8	eight
\.
ROLLBACK;
SELECT count(*) FROM c;
COPY c FROM '/nonexistent/file';
COPY missing FROM STDIN;

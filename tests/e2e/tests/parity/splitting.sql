-- A comment; with a semicolon
SELECT 'it''s; quoted' AS "a;b", $$dollar; quoted$$, $tag$another; $$ one$tag$ /* a /* nested; */ comment; */;
SELECT E'escaped \'; quote', U&'\0441; \+01F600', 'continued '
'string; here' AS joined;
SELECT 1 AS first; SELECT 2 AS second;;
SELECT 3
  AS third
;
CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
SELECT one();
CREATE RULE nothing AS ON INSERT TO pg_temp.none DO INSTEAD (SELECT 1; SELECT 2);
CREATE TABLE ruled (id int);
CREATE RULE two AS ON UPDATE TO ruled DO INSTEAD (SELECT 1; SELECT 2);
SELECT '\' AS backslash;
SET standard_conforming_strings TO on;
SELECT 'a' AS "quoted ""name""", "current_user"() IS NULL AS f;
VALUES (1), (2);
TABLE ruled;
WITH w AS (INSERT INTO ruled VALUES (1), (2) RETURNING id) SELECT sum(id) FROM w;
EXPLAIN (COSTS OFF) SELECT * FROM ruled WHERE id = 1;
SELECT 5 -- no semicolon at the end

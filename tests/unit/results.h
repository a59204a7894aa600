/* results: rows without a database, of values as PostgreSQL would send them. */
#ifndef COMPOSURE_UNIT_RESULTS_H
#define COMPOSURE_UNIT_RESULTS_H

#include <libpq-fe.h>

#include "unit.h"

#include "db/rows.h"

/* cells row by row; an absent one is NULL. */
static inline struct rows *result_of(int n_rows, int n_columns, const struct view *cells)
{
	PGresult *r = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	PGresAttDesc columns[64] = { 0 };
	char name[] = "c";
	assert_true(r && n_columns <= 64);
	for (int c = 0; c < n_columns; c++)
		columns[c] = (PGresAttDesc){ .name = name, .format = 1, .typlen = -1 };
	assert_true(PQsetResultAttrs(r, n_columns, columns));
	for (int row = 0; row < n_rows; row++) {
		for (int c = 0; c < n_columns; c++) {
			struct view v = cells[row * n_columns + c];
			/* libpq takes what it only reads without const. */
			assert_true(PQsetvalue(r, row, c, (char *)(uintptr_t)v.p, v.p ? (int)v.n : -1));
		}
	}
	return (struct rows *)(void *)r;
}

static inline struct rows *text_result(int n_rows, int n_columns, const char *const *cells)
{
	struct view views[256];
	assert_true(n_rows * n_columns <= 256);
	for (int i = 0; i < n_rows * n_columns; i++)
		views[i] = view_of(cells[i]);
	return result_of(n_rows, n_columns, views);
}

#endif

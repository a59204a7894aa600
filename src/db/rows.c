#include "config.h"

#include "db/rows.h"

#include <libpq-fe.h>
#include <stdlib.h>

/* A rows is a PGresult under a name of our own; the cast lives here alone. */
static const PGresult *result(const struct rows *r)
{
	return (const PGresult *)(const void *)r;
}

void rows_free(struct rows *r)
{
	PQclear((PGresult *)(void *)r);
}

int rows_count(const struct rows *r)
{
	return PQntuples(result(r));
}

int rows_columns(const struct rows *r)
{
	return PQnfields(result(r));
}

uint32_t rows_type(const struct rows *r, int column)
{
	return PQftype(result(r), column);
}

struct view rows_value(const struct rows *r, int row, int column)
{
	const PGresult *res = result(r);
	const char *p = PQgetvalue(res, row, column);
	int n = PQgetlength(res, row, column);
	if (n == 0 && PQgetisnull(res, row, column))
		return VIEW_NONE;
	return view_make(p, (size_t)n);
}

int64_t rows_affected(const struct rows *r)
{
	/* libpq wants a non-const PGresult for this one and does not write to it. */
	const char *n = PQcmdTuples((PGresult *)(uintptr_t)result(r));
	return n && *n ? strtoll(n, NULL, 10) : 0;
}

int64_t rows_int(struct view v)
{
	if (v.n != 1 && v.n != 2 && v.n != 4 && v.n != 8)
		return 0;
	uint64_t u = (v.p[0] & 0x80) ? ~(uint64_t)0 : 0;
	for (size_t i = 0; i < v.n; i++)
		u = (u << 8) | (unsigned char)v.p[i];
	return (int64_t)u;
}

/* array_send(): dimensions, whether there are NULLs, element type; length and lower bound of each dimension; then length
 * and bytes of each element. */
int rows_array(struct view *value)
{
	struct view v = *value;
	if (!v.p || v.n < 12 || rows_int(view_make(v.p + 4, 4)) != 0)
		return -1;
	int64_t dimensions = rows_int(view_make(v.p, 4));
	if (dimensions == 0) {
		*value = view_skip(v, 12);
		return 0;
	}
	if (dimensions != 1 || v.n < 20)
		return -1;
	int64_t n = rows_int(view_make(v.p + 12, 4));
	if (n < 0 || (uint64_t)n > (v.n - 20) / 4)
		return -1;
	*value = view_skip(v, 20);
	return (int)n;
}

bool rows_array_next(struct view *rest, struct view *element)
{
	if (rest->n < 4)
		return false;
	int64_t n = rows_int(view_make(rest->p, 4));
	if (n < 0 || (uint64_t)n > rest->n - 4)
		return false;
	*element = view_make(rest->p + 4, (size_t)n);
	*rest = view_skip(*rest, 4 + (size_t)n);
	return true;
}

unsigned rows_texts(struct view array, struct view *out, unsigned max)
{
	int n = rows_array(&array);
	if (n < 0 || (unsigned)n > max)
		return ROWS_ANY;
	for (int i = 0; i < n; i++)
		if (!rows_array_next(&array, &out[i]))
			return ROWS_ANY;
	return (unsigned)n;
}

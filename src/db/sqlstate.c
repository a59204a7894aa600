/* SQLSTATEs (PostgreSQL manual, appendix A) as statuses: the exact ones first, then their classes. */
#include "config.h"

#include <stddef.h>
#include <string.h>

#include "base/attributes.h"
#include "db/pool.h"

static const struct {
	const char *prefix; /* five characters, or a class of two */
	enum status status;
} table[] = {
	{ "23505", ERR_CONFLICT },         /* unique_violation */
	{ "23P01", ERR_CONFLICT },         /* exclusion_violation */
	{ "23503", ERR_FOREIGN_KEY },
	{ "23", ERR_CHECK_VIOLATION },     /* not null, check, restrict */
	{ "22", ERR_INVALID_VALUE },       /* data exception */
	{ "42804", ERR_INVALID_VALUE },    /* datatype_mismatch */
	{ "42501", ERR_FORBIDDEN },        /* insufficient_privilege; row-level security's refusals too */
	{ "44000", ERR_CHECK_VIOLATION },  /* with_check_option_violation */
	{ "25006", ERR_METHOD_NOT_ALLOWED }, /* a read that writes: read_only_sql_transaction */
	{ "40", ERR_OVERLOADED },          /* serialization failure, deadlock: worth another try */
	{ "55P03", ERR_OVERLOADED },       /* lock_not_available */
	{ "57014", ERR_DEADLINE },         /* query_canceled: statement_timeout */
	{ "53", ERR_OVERLOADED },          /* insufficient resources */
	{ "57P", ERR_UNAVAILABLE },        /* shutdown, crash, starting up */
	{ "08", ERR_UNAVAILABLE },         /* connection exception */
	{ "P0001", ERR_RAISED },           /* RAISE EXCEPTION */
	{ "54", ERR_QUERY_TOO_COMPLEX },   /* program limit exceeded */
};

enum status sqlstate_status(const char *sqlstate)
{
	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		if (strncmp(sqlstate, table[i].prefix, strlen(table[i].prefix)) == 0)
			return table[i].status;
	return ERR_DATABASE;
}

enum status db_error_status(const struct db_error *e)
{
	return e->no_writes ? ERR_UNAVAILABLE : e->sqlstate[0] ? sqlstate_status(e->sqlstate) : ERR_DATABASE;
}

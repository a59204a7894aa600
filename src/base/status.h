/* status: how a thing ended, from the smallest function to the answer's status line.
 *
 * One list serves the enum, the HTTP status, the stable `code` of a problem document (RFC 9457) and its title.
 * Codes are part of the public contract (doc/errors.md): they are added to, never renamed.
 */
#ifndef COMPOSURE_STATUS_H
#define COMPOSURE_STATUS_H

/*   id                        HTTP  code                       title */
#define STATUS_LIST(X)                                                                                          \
	X(OK, 200, "ok", "OK")                                                                                  \
	X(ERR_BAD_REQUEST, 400, "bad_request", "The request is malformed")                                      \
	X(ERR_INVALID_CURSOR, 400, "invalid_cursor", "The cursor is not valid for this list")                   \
	X(ERR_INVALID_LIMIT, 400, "invalid_limit", "The limit is not a positive integer")                       \
	X(ERR_UNKNOWN_PARAMETER, 400, "unknown_parameter", "The query has a parameter that is not known here")  \
	X(ERR_INVALID_PARAMETER, 400, "invalid_parameter", "A query parameter has a value that does not fit")   \
	X(ERR_INVALID_HEADER, 400, "invalid_header", "A request header is malformed or repeated")               \
	X(ERR_INVALID_BODY, 400, "invalid_body", "The body is not what this resource takes")                    \
	X(ERR_INVALID_VALUE, 400, "invalid_value", "A value does not fit its column")                           \
	X(ERR_UNKNOWN_COLUMN, 400, "unknown_column", "There is no such column")                                 \
	X(ERR_UNKNOWN_OPERATOR, 400, "unknown_operator", "A filter has an operator that is not known")          \
	X(ERR_UNKNOWN_RELATIONSHIP, 400, "unknown_relationship", "There is no such resource to embed")          \
	X(ERR_AMBIGUOUS_RELATIONSHIP, 400, "ambiguous_relationship", "A resource can be embedded in several ways") \
	X(ERR_INVALID_FILTER, 400, "invalid_filter", "A filter is malformed or does not fit its column")        \
	X(ERR_INVALID_SELECT, 400, "invalid_select", "The select parameter is malformed")                       \
	X(ERR_INVALID_ORDER, 400, "invalid_order", "The order parameter is malformed")                          \
	X(ERR_READ_ONLY_COLUMN, 400, "read_only_column", "A column in the body cannot be written")              \
	X(ERR_QUERY_TOO_COMPLEX, 400, "query_too_complex", "The query is over a bound")                         \
	X(ERR_IDEMPOTENCY_KEY_MISSING, 400, "idempotency_key_missing", "This write needs an Idempotency-Key")   \
	X(ERR_IDEMPOTENCY_KEY_INVALID, 400, "idempotency_key_invalid", "The Idempotency-Key is malformed")      \
	X(ERR_RAISED, 400, "raised", "The database refused the request")                                        \
	X(ERR_ANSWER_TOO_LARGE, 400, "answer_too_large", "The answer would be larger than is kept for a retry") \
	X(ERR_UNAUTHENTICATED, 401, "unauthenticated", "This resource needs an API key")                        \
	X(ERR_INVALID_KEY, 401, "invalid_key", "The API key is not valid")                                      \
	X(ERR_FORBIDDEN, 403, "forbidden", "This API key may not do that")                                      \
	X(ERR_NOT_FOUND, 404, "not_found", "There is nothing here")                                             \
	X(ERR_METHOD_NOT_ALLOWED, 405, "method_not_allowed", "This resource does not take that method")         \
	X(ERR_NOT_ACCEPTABLE, 406, "not_acceptable", "None of the accepted media types can be made")            \
	X(ERR_NOT_ONE_ROW, 406, "not_one_row", "The list does not have exactly one row")                        \
	X(ERR_REQUEST_TIMEOUT, 408, "request_timeout", "The request did not arrive in time")                    \
	X(ERR_CONFLICT, 409, "conflict", "The write conflicts with what is there")                              \
	X(ERR_FOREIGN_KEY, 409, "foreign_key_violation", "The write breaks a reference between rows")           \
	X(ERR_IN_PROGRESS, 409, "idempotency_in_progress", "A request with this key is being carried out")      \
	X(ERR_PRECONDITION_FAILED, 412, "precondition_failed", "The resource is not in the expected state")     \
	X(ERR_BODY_TOO_LARGE, 413, "body_too_large", "The body is larger than this server takes")               \
	X(ERR_URI_TOO_LONG, 414, "uri_too_long", "The URL is longer than this server takes")                    \
	X(ERR_MEDIA_TYPE, 415, "unsupported_media_type", "The body's media type is not taken here")             \
	X(ERR_CHECK_VIOLATION, 422, "constraint_violation", "The values break a rule of the resource")          \
	X(ERR_IDEMPOTENCY_MISMATCH, 422, "idempotency_mismatch", "The key was used for another request")        \
	X(ERR_RATE_LIMITED, 429, "rate_limited", "The quota of this API key is used up")                        \
	X(ERR_HEADERS_TOO_LARGE, 431, "headers_too_large", "The request headers are larger than is taken")      \
	X(ERR_INTERNAL, 500, "internal_error", "Something went wrong on our side")                              \
	X(ERR_DATABASE, 500, "database_error", "The database answered with an error")                           \
	X(ERR_NOT_IMPLEMENTED, 501, "not_implemented", "The method is not known to this server")                \
	X(ERR_OVERLOADED, 503, "overloaded", "The server has more work than it can take")                       \
	X(ERR_CIRCUIT_OPEN, 503, "circuit_open", "Too many requests to this resource failed or took too long")     \
	X(ERR_UNAVAILABLE, 503, "database_unavailable", "The database cannot be reached")                       \
	X(ERR_NOT_CACHED, 504, "not_cached", "Nothing of it is kept, and only that was asked for")              \
	X(ERR_DEADLINE, 504, "deadline_exceeded", "The answer was not ready within the deadline")               \
	X(ERR_OUTCOME_UNKNOWN, 504, "outcome_unknown", "Whether the write took effect is not known")

enum status {
#define X(id, http, code, title) id,
	STATUS_LIST(X)
#undef X
	STATUS_COUNT
};

/* Constants of the table; for every value of the enum. */
int status_http(enum status);
const char *status_code(enum status);
const char *status_title(enum status);

/* The reason phrase of an HTTP status, "" for one we do not send. */
const char *status_reason(int http);

#endif

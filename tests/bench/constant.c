/* Answers each request with the same bytes: the ceiling of what a program gets out of FastCGI and the web server.
 *
 *     constant [--bytes N]     of the body; a page of 50 users of the demo has 7,853, one of them about 151
 *
 * The listening socket is fd 0, as spawn-fcgi hands it over. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "least.h"

enum { BODY_MAX = 65000 };

static char record[LEAST_FRONT + LEAST_HEAD + BODY_MAX + LEAST_BACK];
static size_t n_answer;

static void on_request(struct peer *p, const char *params, size_t n)
{
	(void)params, (void)n;
	least_answer(p, record, n_answer);
}

int main(int argc, char **argv)
{
	size_t n_body = 7853;
	if (argc == 3 && strcmp(argv[1], "--bytes") == 0)
		n_body = strtoul(argv[2], NULL, 10);
	else if (argc != 1)
		least_fail(argv[0], "the one option is --bytes N");
	if (n_body > BODY_MAX)
		least_fail(argv[0], "the answer has to fit into one record");
	char *body = least_head(record + LEAST_FRONT, n_body, n_body > 1000);
	memset(body, 'x', n_body);
	n_answer = (size_t)(body + n_body - record) - LEAST_FRONT;
	return least_run(&(struct least){ .request = on_request });
}

/* least: the least of FastCGI on epoll that answers a real web server, for the programs that Composure is measured
 * against. No error is survived, no bound is kept but the buffer's, a peer's bytes are trusted.
 *
 * A request has to fit into the peer's buffer; an answer goes out in one send(), which a Unix socket takes whole as
 * long as the web server has read the one before.
 */
#ifndef COMPOSURE_LEAST_H
#define COMPOSURE_LEAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is watched: called with its own address. */
struct watched {
	void (*ready)(struct watched *);
	int fd;
};

struct peer {
	struct watched watched;
	struct peer *next;  /* the user's, while the request runs */
	bool gone;          /* closed while its request runs: answering frees it */
	bool running, keep; /* keep: the web server closes the connection, not we */
	uint16_t id;
	size_t n_in;
	uint64_t wanted; /* the user's: what is asked for */
	int kind;
	char in[8192];
};

/* Calls request() with the parameter stream of each request (it is to be answered then or later, once), and flush(),
 * if there is one, at the end of each wake-up. Returns on SIGTERM with what main() is to return. */
struct least {
	void (*request)(struct peer *, const char *params, size_t n);
	void (*flush)(void);
};
int least_run(const struct least *);

/* Another socket to watch, for reading; before or while least_run() runs. */
void least_watch(struct watched *);

/* Writes the head of an answer to `at`: its end, at most LEAST_HEAD on. It has the headers that Composure gives a page
 * of the demo's users or one of them, as long as those are; what differs from one to the next is always the same here. */
char *least_head(char *at, size_t n_body, bool page);

/* Room for a head, and in front of and behind an answer that is made in place. */
enum { LEAST_HEAD = 640, LEAST_FRONT = 8, LEAST_BACK = 8 + 16 };

/* The whole CGI answer stands at record + LEAST_FRONT, n bytes of at most 65528; the records are made around it. The
 * peer is the web server's again, and may be freed. */
void least_answer(struct peer *, char *record, size_t n);

/* Says what went wrong and ends the process. */
_Noreturn void least_fail(const char *what, const char *why);

#endif

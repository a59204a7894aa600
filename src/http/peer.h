/* peer: an accepted connection of the web server in the loop: reads, feeds the codec, writes answers.
 *
 * One request at a time. A slow peer costs its buffers, of bounded size, and nothing else: a body that is slow to come
 * waits in the exchange's buffer, an answer that is slow to go waits in the response, of which WINDOW bytes at a time
 * are encoded. A connection on which nothing moves for idle_us is closed, unless a request of its own is being worked
 * on (that has its deadline); parameters have to be there in that time; an answer has to be taken at slowest_bytes_s at
 * least, idle_us on top.
 */
#ifndef COMPOSURE_PEER_H
#define COMPOSURE_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/view.h"
#include "http/response.h"

struct peer;

/* What the peer tells its owner. `user` is what the owner kept with peer_set_user(). */
struct peer_owner {
	/* A request's parameter stream is complete (or too large: absent). */
	void (*request)(void *context, struct peer *, struct view params);
	void (*body)(void *context, struct peer *, struct view piece);
	void (*body_end)(void *context, struct peer *);
	/* The request is over without an answer: aborted, or the connection is gone. The response is no longer read. */
	void (*aborted)(void *context, struct peer *);
	/* The answer has been handed to the kernel: the response is free again. */
	void (*sent)(void *context, struct peer *);
	/* The peer is gone, its memory with it. No request was running, or aborted() came before. */
	void (*closed)(void *context, struct peer *);
	void *context;
};

struct peer_options {
	size_t params_max_bytes;
	int64_t idle_us;
	uint64_t slowest_bytes_s;
	/* Asked at the end of each answer (with the owner's context): is it to be the connection's last? Then it ends with
	 * fastcgi_trailer() when the web server is nginx, which closes the connection on that, else it is closed behind it.
	 * NULL: the web server alone closes connections. */
	bool (*last)(void *context);
	bool trailer;
};

/* Takes fd over. NULL: out of memory, fd is closed. owner and options outlive the peer. */
struct peer *peer_create(struct loop *, int fd, const struct peer_owner *, const struct peer_options *);

void peer_set_user(struct peer *, void *user);
void *peer_user(const struct peer *);

/* Does the web server keep this connection for its next request? Known from its first request on. */
bool peer_is_kept(const struct peer *);

/* Answers the running request. The response stays untouched by the owner until sent() or aborted(). Once for each
 * request() that was not aborted; may come before body_end(), then the rest of the body is read and dropped; not so after
 * a 408, which ends the request at once. */
void peer_answer(struct peer *, const struct response *);

/* Closes at once; aborted() comes when a request is running, then closed(). */
void peer_close(struct peer *);

#endif

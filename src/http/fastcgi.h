/* fastcgi: the FastCGI protocol (specification 1.0) as a codec without I/O: bytes in, events out; answers in, bytes out.
 *
 * It reads no socket, allocates nothing and keeps no bytes: the caller hands in what has arrived, consumes what was
 * used, and calls again when more is there. One request at a time on a connection (FCGI_MPXS_CONNS is 0, as with every
 * web server we know): another BEGIN_REQUEST meanwhile is refused with CANT_MPX_CONN, roles other than RESPONDER
 * with UNKNOWN_ROLE, unknown management records with UNKNOWN_TYPE. Records of requests that are not running are
 * ignored, as the specification asks (section 3.3). The only file that sees libfcgi's headers.
 *
 * BEGIN_REQUEST and GET_VALUES records are decoded once they are there whole, so the caller's input must be able to
 * hold FASTCGI_WHOLE_BYTES; longer ones are BROKEN. All others are decoded from whatever piece is there.
 */
#ifndef COMPOSURE_FASTCGI_H
#define COMPOSURE_FASTCGI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/view.h"

enum {
	FASTCGI_WHOLE_BYTES = 8 + 1024,
	FASTCGI_CONNECTIONS = 1024, /* told to a web server that asks for FCGI_MAX_CONNS or FCGI_MAX_REQS */
};

enum fastcgi_event_kind {
	FASTCGI_MORE,       /* nothing complete is there: read more and call again */
	FASTCGI_BEGIN,      /* a request begins: keep_conn is set */
	FASTCGI_PARAMS,     /* data: a piece of the parameter stream, to be appended to the pieces before */
	FASTCGI_PARAMS_END, /* the parameter stream is complete */
	FASTCGI_STDIN,      /* data: a piece of the body */
	FASTCGI_STDIN_END,  /* the body is complete; the request stays the running one until fastcgi_end() */
	FASTCGI_ABORT,      /* the web server gives the running request up; fastcgi_end() still has to be called */
	FASTCGI_REPLY,      /* data is in *reply: management answers to be sent as they are */
	FASTCGI_BROKEN,     /* not FastCGI: close the connection */
};

struct fastcgi_event {
	enum fastcgi_event_kind kind;
	struct view data; /* points into the input; valid as long as that is */
	bool keep_conn;
};

/* Zero-initialised for a new connection; the codec's own. */
struct fastcgi {
	uint16_t id;        /* of the running request, 0: none */
	bool keep_conn;
	bool params_done, stdin_done;
	uint32_t content_left; /* of a record whose header was consumed already */
	uint32_t padding_left;
	uint8_t type;       /* of that record */
	bool skip;          /* its content is nobody's */
};

/* Decodes one event from the front of `in`; *consumed says how much of it is used up (also for FASTCGI_MORE). PARAMS
 * and STDIN pieces come as they arrive, a record need not be complete. Management replies are appended to *reply. */
struct fastcgi_event fastcgi_decode(struct fastcgi *, struct view in, size_t *consumed, struct buf *reply);

/* The next name-value pair off the front of a complete parameter stream. False at its end; *broken is set when what
 * is left is not a pair. */
bool fastcgi_pair(struct view *rest, struct view *name, struct view *value, bool *broken);

/* Appends STDOUT records with `data` to out (none for empty data). */
void fastcgi_stdout(const struct fastcgi *, struct buf *out, struct view data);

/* Appends the end of STDOUT and END_REQUEST, and the codec is ready for the next BEGIN_REQUEST. What is still to come
 * of the request that ended (the rest of a body) is decoded to nothing. */
void fastcgi_end(struct fastcgi *, struct buf *out);

/* Appends an empty record that belongs to no request. nginx drops a kept connection that has bytes behind END_REQUEST,
 * so a worker that leaves ends its last answer with it, in the same write. */
void fastcgi_trailer(struct buf *out);

/* True when fd 0 is a listening socket, so that we are a FastCGI program; false: plain CGI. libfcgi takes SIGPIPE,
 * SIGUSR1 and SIGTERM on this occasion where they are at their default: set up signals after it. */
bool fastcgi_is_listening(void);

/* A listening socket, non-blocking and close-on-exec, or -1 and errno. The caller owns it. What has a '/' or no ':' is
 * a path: mode 0660, a stale socket there is replaced, one that somebody listens on is EADDRINUSE, another kind of
 * file EEXIST. Else host:port, [IPv6]:port, *:port for all interfaces, or :port for 127.0.0.1 (whoever reaches a
 * FastCGI port may say who he is). Looks names up and blocks on that: for start-up. */
int fastcgi_listen(const char *address, int backlog);

#endif

/* region: the memory that all workers of an installation on this host share.
 *
 * One mapped file with a header, worker slots and areas; each area belongs to one room, which lays its own structures
 * into it. What is read from it is bounded before use; a region that cannot be had is private memory of the same form,
 * and region_note() says why.
 */
#ifndef COMPOSURE_REGION_H
#define COMPOSURE_REGION_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/attributes.h"
#include "base/view.h"
#include "shm/lock.h"

/* Changes whenever a structure in the region changes: builds with different numbers have different files. (Programs of
 * the tests have others, and less room.) */
#ifndef REGION_LAYOUT
#define REGION_LAYOUT 12
#endif
#ifndef REGION_CATALOG_BYTES
#define REGION_CATALOG_BYTES ((size_t)(8 << 20) + 4096)
#endif
enum { REGION_SLOTS = 256 };

/*   area       bytes; STORE has as many as region_options says besides */
#define REGION_AREAS(X)                          \
	X(CATALOG, REGION_CATALOG_BYTES)         \
	X(KEYS, (size_t)8 << 20)                 \
	X(LIMITS, (size_t)12 << 20)              \
	X(FLIGHTS, (size_t)1 << 20)              \
	X(BREAKERS, (size_t)2 << 20)             \
	X(PROGRESS, (size_t)1 << 19)             \
	X(STORE, (size_t)0)

enum region_area {
#define X(name, bytes) AREA_##name,
	REGION_AREAS(X)
#undef X
	AREA_COUNT
};

/* A worker's life, and what it holds. Written by its worker alone; read by all as hints. */
struct slot {
	_Atomic uint32_t epoch;       /* grows with each worker that takes the slot */
	_Atomic uint32_t pid;
	_Atomic uint32_t connections; /* of web servers, live */
	_Atomic uint32_t leaving;     /* it no longer accepts */
	_Atomic int64_t beat_us;      /* when its loop last turned (CLOCK_MONOTONIC, 20 ms at a time): it is not stopped */
	uint8_t unused[40];           /* a cache line of its own */
};

struct region_options {
	const char *folder;   /* empty: the usual ones (mapping.h) */
	const char *instance; /* tells installations of one user apart: hex digits */
	size_t store_bytes;   /* of AREA_STORE; a file with another size is replaced */
};

struct region;

/* What is there, for region_describe() and other readers; nothing is changed, no slot taken. NULL and a line in why. */
struct region *region_view(const struct region_options *, char *why, int why_size);

/* Attaches, or falls back to private memory. NULL: not even that. The caller owns it. */
struct region *region_open(const struct region_options *);
void region_close(struct region *);

bool region_is_shared(const struct region *);

/* Why the memory is private; empty when it is not. Valid while the region is. */
struct view region_note(const struct region *);

/* The area's memory, zeros when `fresh` (a new file, or its content was not usable). */
void *region_area(struct region *, enum region_area, size_t *bytes);
bool region_fresh(const struct region *);

/* Nobody else was attached: locks found held are of the dead, data may be repaired at leisure. */
bool region_alone(const struct region *);

/* That, and nobody can attach before region_ready(). */
bool region_repairing(const struct region *);

/* Everything that had to be initialised is: others may attach. Exactly once, soon after region_open(). */
void region_ready(struct region *);

/* Our slot, and our name in lock words. */
struct slot *region_slot(struct region *);
uint64_t region_me(const struct region *);

/* Slots 0..REGION_SLOTS-1; alive: a process holds its byte (a system call, except for our own). */
struct slot *region_slot_at(struct region *, unsigned n);
bool region_slot_alive(struct region *, unsigned n);
bool region_holder_alive(struct region *, uint64_t holder);

/* The file is still the one under its name, and its head what it was. False: drain and leave, so that a successor attaches to the new one. */
bool region_intact(const struct region *);

/* For people: layout, sizes, who is attached. */
void region_describe(struct region *, FILE *);

/* The name of this boot and PID namespace, for files that must not outlive them: 24 hex digits and a NUL. */
enum { REGION_EPOCH_CHARS = 25 };
void region_epoch_name(char out[REGION_EPOCH_CHARS]);

#endif

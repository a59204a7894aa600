/* mapping: a file that several processes map, whoever comes first and whoever dies.
 *
 * The kernel is the judge of life and death: OFD byte locks on the file itself, which end with their holder however it
 * ends. Byte 0 serialises attaching, byte 2 is held shared by everyone attached, so that who gets it exclusively is
 * alone; the bytes from 64 on, and byte 1, are the users'. The file is looked at like a stranger's: no link is
 * followed, owner, kind, mode, link count and size are checked, space is allocated before it is mapped (a sparse file
 * on a full disk is a SIGBUS), and it is never made shorter while anyone else is attached.
 *
 * When the file is cut short behind our back, the pages that are gone become zeros of this process alone, and
 * mapping_intact() turns false: the process can go on and leave in good order.
 */
#ifndef COMPOSURE_MAPPING_H
#define COMPOSURE_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attributes.h"

enum { MAPPING_BYTE_WATCH = 1, MAPPING_BYTE_SLOTS = 64 };

struct mapping {
	void *memory;
	size_t bytes;
	int dir_fd, fd;   /* -1, -1: private memory of this process */
	char name[128];
	uint64_t device, inode;
	bool alone;       /* nobody else was attached when we came; true for private memory */
	bool fresh;       /* the memory is all zeros */
};

/* The folder for shared files: `wanted` if not empty, else /dev/shm/composure-<uid>, $XDG_RUNTIME_DIR/composure or
 * ~/.composure, the first that is ours alone (0700) and lies on a local file system; `make`: or can be made. Returns
 * its descriptor, or -1 and a line in why. */
int mapping_folder(const char *wanted, bool make, char *why, int why_size) MUST_CHECK;

/* Opens or makes `name` in the folder and maps it. `good` judges what is there (called before anyone can attach; the
 * memory is at least `bytes` long). When it says no and we are alone, the content is made zeros; when others use it,
 * it loses its name to a new file (they notice by mapping_intact() and leave). On success byte 0 is still held: the
 * caller initialises what has to be and then calls mapping_ready(). The descriptor dir_fd is duplicated. False and a
 * line in why: not ours, no space, held by somebody who does not answer. */
bool mapping_attach(struct mapping *, int dir_fd, const char *name, size_t bytes, bool (*good)(const void *, size_t),
                    char *why, int why_size) MUST_CHECK;
void mapping_ready(struct mapping *);

/* Maps what is there for reading alone: takes no lock, changes nothing, may see it change. False and a line in why: no
 * such file, not ours, not that long. */
bool mapping_view(struct mapping *, int dir_fd, const char *name, size_t bytes, char *why, int why_size) MUST_CHECK;

/* Private memory in its place: zeros. False: out of memory. */
bool mapping_private(struct mapping *, size_t bytes) MUST_CHECK;

void mapping_detach(struct mapping *);

/* Takes the byte if nobody has it (exclusively). Private memory: always. */
bool mapping_byte_take(const struct mapping *, int byte) MUST_CHECK;
void mapping_byte_give(const struct mapping *, int byte);

/* Does another process hold the byte? Our own does not count. When the kernel does not say, yes: a holder that lives
 * must not be taken for dead. */
bool mapping_byte_held(const struct mapping *, int byte);

/* Is the file under its name still the one that is mapped, and whole? */
bool mapping_intact(const struct mapping *);

#endif

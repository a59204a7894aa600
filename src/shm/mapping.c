/* The one hard fact: between open() and lock the file may have been replaced under its name. So after the lock the name
 * is looked up once more, and if it is another file, everything begins anew with that one. */
#include "config.h"

#include "shm/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "shm/point.h"

enum {
	BYTE_START = 0,
	BYTE_ATTACHED = 2,
	WAIT_MS = 1000, /* for somebody who is attaching; longer means that he is stopped */
	TRIES = 4,
};

/* --- SIGBUS: pages that are gone --- */

enum { REGIONS_MAX = 4 };

/* What the signal handler may look at: ranges that are mapped, and whether one was cut short. */
static struct {
	char *volatile at;
	volatile size_t bytes;
	volatile sig_atomic_t cut;
} ranges[REGIONS_MAX];

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	char *at = info->si_addr;
	for (int i = 0; i < REGIONS_MAX; i++) {
		char *from = ranges[i].at;
		if (!from || at < from || at >= from + ranges[i].bytes)
			continue;
		ranges[i].cut = 1;
		/* mmap is a system call and nothing else: safe here (signal-safety(7) does not list it, Linux' one is). */
		if (mmap(from, ranges[i].bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		    MAP_FAILED)
			return;
	}
	(void)signal(SIGBUS, SIG_DFL); /* not ours: the access is tried again and ends the process */
}

static void range_add(void *at, size_t bytes)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	(void)sigaction(SIGBUS, &sa, NULL);
	for (int i = 0; i < REGIONS_MAX; i++) {
		if (!ranges[i].at) {
			ranges[i].bytes = bytes;
			ranges[i].cut = 0;
			ranges[i].at = at;
			return;
		}
	}
}

static void range_remove(const void *at)
{
	for (int i = 0; i < REGIONS_MAX; i++)
		if (ranges[i].at == at)
			ranges[i].at = NULL;
}

static bool range_cut(const void *at)
{
	for (int i = 0; i < REGIONS_MAX; i++)
		if (ranges[i].at == at)
			return ranges[i].cut;
	return false;
}

/* --- byte locks --- */

static int byte_lock(int fd, short type, int byte)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	return fcntl(fd, F_OFD_SETLK, &l);
}

static bool byte_wait(int fd, int byte)
{
	for (int ms = 0; byte_lock(fd, F_WRLCK, byte) < 0; ms++) {
		if ((errno != EAGAIN && errno != EACCES) || ms == WAIT_MS)
			return false;
		struct timespec pause = { .tv_nsec = 1000000 };
		(void)nanosleep(&pause, NULL);
	}
	return true;
}

bool mapping_byte_take(const struct mapping *m, int byte)
{
	return m->fd < 0 || byte_lock(m->fd, F_WRLCK, byte) == 0;
}

void mapping_byte_give(const struct mapping *m, int byte)
{
	if (m->fd >= 0)
		(void)byte_lock(m->fd, F_UNLCK, byte);
}

bool mapping_byte_held(const struct mapping *m, int byte)
{
	if (m->fd < 0)
		return false;
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	return fcntl(m->fd, F_OFD_GETLK, &l) < 0 || l.l_type != F_UNLCK;
}

/* --- the folder --- */

/* statfs(2); a network file system's locks and mappings are another matter. */
static bool is_local(int fd)
{
	static const unsigned long known[] = {
		0x01021994 /* tmpfs */, 0xef53 /* ext */, 0x58465342 /* xfs */, 0x9123683e /* btrfs */,
		0x858458f6 /* ramfs */, 0x2fc12fc1 /* zfs */, 0xf2f52010 /* f2fs */, 0x794c7630 /* overlayfs */,
	};
	struct statfs fs;
	if (fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if ((unsigned long)fs.f_type == known[i])
			return true;
	return false;
}

static int folder_at(const char *path, bool make, char *why, int size)
{
	if (make && mkdir(path, 0700) < 0 && errno != EEXIST) {
		(void)snprintf(why, (size_t)size, "%s cannot be made: %s", path, strerror(errno));
		return -1;
	}
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	const char *wrong = fd < 0 || fstat(fd, &st) < 0 ? strerror(errno)
	                    : st.st_uid != geteuid()     ? "it belongs to another user"
	                    : st.st_mode & 077           ? "others may enter it (its mode has to be 0700)"
	                    : !is_local(fd)              ? "it is not on a local file system"
	                                                 : NULL;
	if (!wrong)
		return fd;
	(void)snprintf(why, (size_t)size, "%s cannot be used: %s", path, wrong);
	if (fd >= 0)
		close(fd);
	return -1;
}

int mapping_folder(const char *wanted, bool make, char *why, int size)
{
	char path[512];
	if (*wanted)
		return folder_at(wanted, make, why, size);
	(void)snprintf(why, (size_t)size, "there is no /dev/shm, and neither XDG_RUNTIME_DIR nor HOME is set");
	(void)snprintf(path, sizeof path, "/dev/shm/composure-%u", (unsigned)geteuid());
	int fd = access("/dev/shm", W_OK | X_OK) == 0 ? folder_at(path, make, why, size) : -1;
	const char *run = getenv("XDG_RUNTIME_DIR"), *home = getenv("HOME");
	if (fd < 0 && run && *run == '/') {
		(void)snprintf(path, sizeof path, "%s/composure", run);
		fd = folder_at(path, make, why, size);
	}
	if (fd < 0 && home && *home == '/') {
		(void)snprintf(path, sizeof path, "%s/.composure", home);
		fd = folder_at(path, make, why, size);
	}
	return fd;
}

/* --- attaching --- */

static const char *judge_file(int fd, struct stat *st)
{
	if (fstat(fd, st) < 0)
		return strerror(errno);
	if (!S_ISREG(st->st_mode))
		return "it is not a plain file";
	if (st->st_uid != geteuid())
		return "it belongs to another user";
	if (st->st_mode & 077)
		return "others may read it (its mode has to be 0600)";
	if (st->st_nlink != 1)
		return st->st_nlink ? "it has more than one name" : "it was removed";
	return NULL;
}

static bool same_file(int dir_fd, const char *name, const struct stat *st)
{
	struct stat now;
	return fstatat(dir_fd, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev == st->st_dev && now.st_ino == st->st_ino;
}

/* The file under the name, with byte 0 held, or -1. */
static int open_locked(int dir_fd, const char *name, struct stat *st, char *why, int size)
{
	for (int i = 0; i < TRIES; i++) {
		int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
		const char *wrong = fd < 0 ? strerror(errno) : judge_file(fd, st);
		if (!wrong && !byte_wait(fd, BYTE_START))
			wrong = "somebody has been attaching to it for a second";
		/* Whoever held the byte may have made the file what it is: its size is looked at only now. */
		if (!wrong)
			wrong = judge_file(fd, st);
		if (!wrong && same_file(dir_fd, name, st))
			return fd;
		if (fd >= 0)
			close(fd);
		if (wrong && (fd < 0 || st->st_nlink != 0)) {
			(void)snprintf(why, (size_t)size, "%s cannot be used: %s", name, wrong);
			return -1;
		}
	}
	(void)snprintf(why, (size_t)size, "%s is replaced again and again", name);
	return -1;
}

/* Zeros of the right length, every block of it there. Only when alone. */
static bool make_zeros(int fd, size_t bytes, char *why, int size)
{
	int error = ftruncate(fd, 0) < 0 ? errno : 0;
	shm_point("mapping-emptied");
	error = error ? error : posix_fallocate(fd, 0, (off_t)bytes);
	if (!error)
		return true;
	(void)snprintf(why, (size_t)size, "no space for the shared memory: %s", strerror(error));
	/* What was got of it goes back; if even that fails, the next one to attach tries again. */
	if (ftruncate(fd, 0) < 0)
		(void)snprintf(why, (size_t)size, "the file of the shared memory cannot be emptied: %s", strerror(errno));
	return false;
}

static void *map(int fd, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static bool map_shared(struct mapping *m)
{
	m->memory = map(m->fd, m->bytes);
	if (m->memory)
		range_add(m->memory, m->bytes);
	return m->memory;
}

static void unmap(struct mapping *m)
{
	if (!m->memory)
		return;
	range_remove(m->memory);
	(void)munmap(m->memory, m->bytes);
	m->memory = NULL;
}

enum outcome { ATTACHED, FAILED, FOREIGN };

/* Holding byte 0: are we alone, is the content good, and what follows. */
static enum outcome attach_locked(struct mapping *m, const struct stat *st, bool (*good)(const void *, size_t), char *why,
                                  int size)
{
	shm_point("mapping-locked");
	m->alone = byte_lock(m->fd, F_WRLCK, BYTE_ATTACHED) == 0;
	if (!m->alone && byte_lock(m->fd, F_RDLCK, BYTE_ATTACHED) < 0) {
		(void)snprintf(why, (size_t)size, "%s cannot be locked: %s", m->name, strerror(errno));
		return FAILED;
	}
	/* What others use has been written to already; only they can have left holes in it. */
	bool sized = st->st_size == (off_t)m->bytes && (!m->alone || st->st_blocks * 512 >= st->st_size);
	if (sized && map_shared(m) && good(m->memory, m->bytes))
		return ATTACHED;
	if (!m->alone)
		return FOREIGN;
	unmap(m);
	m->fresh = true;
	return make_zeros(m->fd, m->bytes, why, size) && map_shared(m) ? ATTACHED : FAILED;
}

bool mapping_attach(struct mapping *m, int dir_fd, const char *name, size_t bytes, bool (*good)(const void *, size_t),
                    char *why, int size)
{
	struct stat st;
	for (int i = 0; i < TRIES; i++) {
		*m = (struct mapping){ .bytes = bytes, .dir_fd = -1 };
		(void)snprintf(m->name, sizeof m->name, "%s", name);
		m->fd = open_locked(dir_fd, name, &st, why, size);
		if (m->fd < 0)
			return false;
		m->device = st.st_dev;
		m->inode = st.st_ino;
		enum outcome outcome = attach_locked(m, &st, good, why, size);
		if (outcome == ATTACHED) {
			m->dir_fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
			return true;
		}
		/* Cut short or overwritten while others use it: they are about to leave, and we cannot wait for that. */
		bool again = outcome == FOREIGN && unlinkat(dir_fd, name, 0) == 0;
		mapping_detach(m);
		if (outcome == FAILED)
			return false;
		(void)snprintf(why, (size_t)size, "%s has a content that is not known here, and others use it", name);
		if (!again)
			return false;
	}
	return false;
}

bool mapping_view(struct mapping *m, int dir_fd, const char *name, size_t bytes, char *why, int size)
{
	struct stat st;
	*m = (struct mapping){ .bytes = bytes, .dir_fd = -1 };
	(void)snprintf(m->name, sizeof m->name, "%s", name);
	m->fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	const char *wrong = m->fd < 0 ? strerror(errno) : judge_file(m->fd, &st);
	if (!wrong && st.st_size != (off_t)bytes)
		wrong = "it has another size";
	void *p = wrong ? MAP_FAILED : mmap(NULL, bytes, PROT_READ, MAP_SHARED, m->fd, 0);
	if (!wrong && p == MAP_FAILED)
		wrong = strerror(errno);
	if (wrong) {
		(void)snprintf(why, (size_t)size, "%s cannot be read: %s", name, wrong);
		mapping_detach(m);
		return false;
	}
	m->device = st.st_dev;
	m->inode = st.st_ino;
	m->memory = p;
	range_add(p, bytes);
	return true;
}

void mapping_ready(struct mapping *m)
{
	if (m->fd < 0)
		return;
	(void)byte_lock(m->fd, F_RDLCK, BYTE_ATTACHED); /* from exclusive to shared in one step */
	(void)byte_lock(m->fd, F_UNLCK, BYTE_START);
}

bool mapping_private(struct mapping *m, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*m = (struct mapping){ .bytes = bytes, .dir_fd = -1, .fd = -1, .alone = true, .fresh = true };
	if (p == MAP_FAILED)
		return false;
	m->memory = p;
	return true;
}

void mapping_detach(struct mapping *m)
{
	unmap(m);
	if (m->fd >= 0)
		close(m->fd); /* and with it every lock */
	if (m->dir_fd >= 0)
		close(m->dir_fd);
	*m = (struct mapping){ .fd = -1, .dir_fd = -1 };
}

bool mapping_intact(const struct mapping *m)
{
	if (m->fd < 0)
		return true;
	struct stat st;
	return !range_cut(m->memory) && fstatat(m->dir_fd, m->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st.st_dev == m->device && st.st_ino == m->inode && st.st_size == (off_t)m->bytes;
}

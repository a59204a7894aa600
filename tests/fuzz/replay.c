/* The main() of a fuzzer where there is no libFuzzer: each seed in tests/fuzz/seeds/<name>/ is one test (TAP).
 * Given files as arguments, it runs those, to look at what a fuzzer found. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int replay(const char *path)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		return -1;
	/* Of the exact size, so that a sanitizer sees one byte too far. */
	uint8_t *data = NULL;
	size_t n = 0;
	uint8_t piece[4096];
	for (size_t got; (got = fread(piece, 1, sizeof piece, f)) > 0; n += got) {
		uint8_t *grown = realloc(data, n + got);
		if (!grown)
			abort();
		data = grown;
		memcpy(data + n, piece, got);
	}
	fclose(f);
	LLVMFuzzerTestOneInput(data, n);
	free(data);
	return 0;
}

static int seeds_only(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]) < 0) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
			return 1;
		}
	if (argc > 1)
		return 0;

	const char *name = strstr(program_invocation_short_name, "fuzz_");
	const char *srcdir = getenv("srcdir");
	char folder[512];
	snprintf(folder, sizeof folder, "%s/tests/fuzz/seeds/%s", srcdir ? srcdir : ".", name ? name + 5 : "");
	struct dirent **seed;
	int n = scandir(folder, &seed, seeds_only, alphasort);
	if (n <= 0) {
		printf("1..1\nnot ok 1 - %s has seeds\n", folder);
		return 1;
	}
	printf("1..%d\n", n);
	fflush(stdout);
	for (int i = 0; i < n; i++) {
		char path[1024];
		snprintf(path, sizeof path, "%s/%s", folder, seed[i]->d_name);
		int rc = replay(path);
		printf("%s %d - %s\n", rc < 0 ? "not ok" : "ok", i + 1, seed[i]->d_name);
		fflush(stdout);
		free(seed[i]);
	}
	free(seed);
	return 0;
}

/*
 * nestling: the small real package that nestmatrix's own release matrix tests.
 *
 * A daemon on a loopback port that says one line to whoever connects. The line is set in a configuration file, so that
 * an upgrade has something to keep; version 2 can also number its answers, so that there is something to upgrade to.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONFIGURATION "/etc/nestling.conf"
#define PORT 7117

static char greeting[100] = "Hello";
#if MAJOR >= 2
static int numbered = 0;
#endif

/* Reads `key = value` lines; a line it does not know is an error, so that a typing mistake is not silently ignored. */
static void configure(void)
{
	char line[200], value[100];
	FILE *file = fopen(CONFIGURATION, "r");

	if (!file) {
		perror(CONFIGURATION);
		exit(1);
	}
	while (fgets(line, sizeof line, file)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (sscanf(line, "greeting = %99[^\n]", value) == 1) {
			strcpy(greeting, value);
			continue;
		}
#if MAJOR >= 2
		if (sscanf(line, "numbered = %99s", value) == 1) {
			numbered = strcmp(value, "yes") == 0;
			continue;
		}
#endif
		fprintf(stderr, CONFIGURATION ": unknown line: %s", line);
		exit(1);
	}
	fclose(file);
}

/* Tells systemd that we answer from now on (sd_notify(3)): whoever started us need not guess or sleep. */
static void report_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length;
	int fd;

	if (!path || strlen(path) >= sizeof address.sun_path)
		return;
	length = strlen(path);
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd < 0)
		return;
	if (sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		perror("NOTIFY_SOCKET");
	close(fd);
}

static int serve(void)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(PORT),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
#if MAJOR >= 2
	unsigned long answers = 0;
#endif

	signal(SIGPIPE, SIG_IGN);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 16) < 0) {
		perror("nestling");
		return 1;
	}
	report_ready();
	for (;;) {
		int client = accept(fd, NULL, NULL);

		if (client < 0)
			continue;
#if MAJOR >= 2
		if (numbered)
			dprintf(client, "%lu. ", ++answers);
#endif
		dprintf(client, "%s from nestling " VERSION "\n", greeting);
		close(client);
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		puts("nestling " VERSION);
		return 0;
	}
	if (argc != 1) {
		fputs("usage: nestling [--version]\n", stderr);
		return 2;
	}
	configure();
	return serve();
}

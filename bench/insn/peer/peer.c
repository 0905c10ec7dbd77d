/*
 * Both ends of what is counted: one system call a message, and nothing else that
 * runs. A Go program's runtime has a thread that looks after the others, more often
 * after the machine has stalled, and so made the guest's instructions depend on the
 * machine.
 *
 *     peer serve PORT                                TCP and UDP, until it is killed
 *     peer dial ADDRESS PORT KIND SIZE COUNT [CPU]   one run, of at most two minutes
 *
 * A connection, and a datagram that asks for something, begin with a struct ask.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	NOTHING = 0, /* a datagram to take and forget */
	ECHO = 1,    /* one to send back */
	STREAM = 2,  /* send COUNT messages of SIZE bytes */
	RR = 3,      /* send back what comes, SIZE bytes each time */
	CRR = 4,     /* likewise, once, and close */
};

struct ask {
	uint8_t what, rest[3];
	uint32_t size, count;
};

enum {
	MOST = 1 << 17,      /* bytes of a message */
	ROOM = 64 << 20,     /* bytes that a datagram socket holds, as the kernel counts them */
	LIMIT = 120,         /* seconds of a run */
	SILENCE = 300 * 1000 /* microseconds after which a stream of datagrams may be over */
};

static char buf[MOST];

static void on(int fd, int level, int option, int value)
{
	if (setsockopt(fd, level, option, &value, sizeof(value)) < 0)
		err(1, "set a socket's option");
}

static int open_socket(int type)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err(1, "make a socket");
	if (type == SOCK_DGRAM)
		on(fd, SOL_SOCKET, SO_RCVBUFFORCE, ROOM);
	return fd;
}

static struct sockaddr_in at(const char *addr, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	if (inet_pton(AF_INET, addr, &to.sin_addr) != 1)
		errx(2, "%s is no IPv4 address", addr);
	return to;
}

/* take reads n bytes and returns 0 at the end of the connection. */
static int take(int fd, size_t n)
{
	for (size_t got = 0; got < n;) {
		ssize_t k = read(fd, buf + got, n - got);
		if (k <= 0)
			return 0;
		got += k;
	}
	return 1;
}

static int give(int fd, size_t n)
{
	for (size_t put = 0; put < n;) {
		ssize_t k = write(fd, buf + put, n - put);
		if (k <= 0)
			return 0;
		put += k;
	}
	return 1;
}

static void serve_connection(int fd)
{
	struct ask ask;
	if (!take(fd, sizeof(ask)))
		return;
	memcpy(&ask, buf, sizeof(ask));
	if (ask.size < sizeof(ask) || ask.size > MOST)
		return;
	switch (ask.what) {
	case CRR: /* the ask is a part of its message */
		if (take(fd, ask.size - sizeof(ask)))
			give(fd, ask.size);
		break;
	case RR:
		on(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		while (take(fd, ask.size) && give(fd, ask.size))
			;
		break;
	case STREAM:
		for (uint32_t i = 0; i < ask.count && give(fd, ask.size); i++)
			;
		break;
	}
}

static void serve_tcp(struct sockaddr_in here)
{
	int l = open_socket(SOCK_STREAM);
	on(l, SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(l, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(l, 64) < 0)
		err(1, "listen");
	for (;;) {
		int fd = accept(l, NULL, NULL);
		if (fd < 0) {
			if (errno == ECONNABORTED)
				continue;
			err(1, "accept");
		}
		serve_connection(fd);
		close(fd);
	}
}

/* stream_to connects the socket meanwhile: a route is looked up once then, and not for
 * each datagram, which takes the longer the more routes there are. */
static void stream_to(int fd, struct sockaddr_in to, struct ask ask)
{
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		err(1, "connect");
	buf[0] = NOTHING;
	for (uint32_t i = 0; i < ask.count; i++)
		if (write(fd, buf, ask.size) < 0)
			err(1, "send");
	if (connect(fd, &nobody, sizeof(nobody)) < 0)
		err(1, "disconnect");
}

/* serve_udp sends back what it is asked to, a stream if that is asked for. */
static void serve_udp(struct sockaddr_in here)
{
	struct sockaddr_in from;
	struct ask ask;
	int fd = open_socket(SOCK_DGRAM);
	if (bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0)
		err(1, "bind");
	for (;;) {
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);
		if (n < 0)
			err(1, "receive");
		if (n < (ssize_t)sizeof(ask) || buf[0] == NOTHING)
			continue;
		memcpy(&ask, buf, sizeof(ask));
		if (ask.what == ECHO)
			sendto(fd, buf, n, 0, (struct sockaddr *)&from, len);
		if (ask.what == STREAM && ask.size <= MOST)
			stream_to(fd, from, ask);
	}
}

static void serve(const char *port)
{
	struct sockaddr_in here = at("0.0.0.0", port);
	pid_t parent = getpid(), child = fork();
	if (child < 0)
		err(1, "fork");
	if (child > 0)
		serve_tcp(here);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		err(1, "follow the parent");
	serve_udp(here);
}

static int dial(int type, struct sockaddr_in to)
{
	int fd = open_socket(type);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		err(1, "connect");
	return fd;
}

static void want(int ok, const char *what)
{
	if (!ok)
		errx(1, "%s: the connection ended", what);
}

static void put(struct ask ask) { memcpy(buf, &ask, sizeof(ask)); }

static void tcp_rr(struct sockaddr_in to, uint32_t size, uint32_t count)
{
	int fd = dial(SOCK_STREAM, to);
	on(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	put((struct ask){.what = RR, .size = size});
	want(give(fd, sizeof(struct ask)), "ask");
	while (count-- > 0)
		want(give(fd, size) && take(fd, size), "round trip");
}

static void tcp_crr(struct sockaddr_in to, uint32_t size, uint32_t count)
{
	while (count-- > 0) {
		int fd = dial(SOCK_STREAM, to);
		put((struct ask){.what = CRR, .size = size});
		want(give(fd, size) && take(fd, size) && read(fd, buf, 1) == 0, "connection");
		close(fd);
	}
}

static void tcp_stream(struct sockaddr_in to, uint32_t size, uint32_t count)
{
	int fd = dial(SOCK_STREAM, to);
	put((struct ask){.what = STREAM, .size = size, .count = count});
	want(give(fd, sizeof(struct ask)), "ask");
	ssize_t n;
	uint64_t got = 0;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		got += n;
	want(got == (uint64_t)size * count, "stream");
}

static void udp_rr(struct sockaddr_in to, uint32_t size, uint32_t count)
{
	int fd = dial(SOCK_DGRAM, to);
	put((struct ask){.what = ECHO, .size = size});
	while (count-- > 0)
		if (write(fd, buf, size) < 0 || read(fd, buf, size) < 0)
			err(1, "round trip");
}

/* udp_stream takes what comes until nothing does and the server has answered. */
static void udp_stream(struct sockaddr_in to, uint32_t size, uint32_t count)
{
	int fd = dial(SOCK_DGRAM, to);
	struct timeval silence = {.tv_usec = SILENCE};
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence)) < 0)
		err(1, "set a socket's timeout");
	put((struct ask){.what = STREAM, .size = size, .count = count});
	if (write(fd, buf, size) < 0)
		err(1, "ask");
	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));
		if (n > 0 && buf[0] == ECHO)
			return;
		if (n < 0 && errno != EAGAIN)
			err(1, "receive");
		put((struct ask){.what = ECHO});
		if (n < 0 && write(fd, buf, sizeof(struct ask)) < 0)
			err(1, "ask for the end");
	}
}

static const struct {
	const char *kind;
	void (*run)(struct sockaddr_in to, uint32_t size, uint32_t count);
} kinds[] = {
	{"tcp_rr", tcp_rr}, {"tcp_crr", tcp_crr}, {"tcp_stream", tcp_stream}, {"udp_rr", udp_rr}, {"udp_stream", udp_stream},
};

static void pin(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		err(1, "run on CPU %d", cpu);
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		serve(argv[2]);
	if (argc == 8)
		pin(atoi(argv[--argc]));
	if (argc != 7 || strcmp(argv[1], "dial") != 0)
		errx(2, "usage: peer serve PORT, or peer dial ADDRESS PORT KIND SIZE COUNT [CPU]");
	long size = atol(argv[5]), count = atol(argv[6]);
	if (size < (long)sizeof(struct ask) || size > MOST || count < 1)
		errx(2, "a size of %ld or a count of %ld is not possible", size, count);
	alarm(LIMIT);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(argv[4], kinds[i].kind) == 0) {
			kinds[i].run(at(argv[2], argv[3]), size, count);
			return 0;
		}
	errx(2, "no kind %s", argv[4]);
}

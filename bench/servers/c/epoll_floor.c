/* A bare epoll echo server, the other floor: one thread, level-triggered, one
 * hot buffer, one recv and one send per event.
 *
 * usage: epoll_floor PORT */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn {
	char *rest;
	size_t len, off;
};

static struct conn conns[1 << 16];
static int ep;

static void drop(int fd)
{
	free(conns[fd].rest);
	conns[fd] = (struct conn){ 0 };
	close(fd);
}

static void watch(int fd, unsigned events)
{
	struct epoll_event e = { .events = events, .data.fd = fd };
	epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
}

/* flush sends what was left over; reading goes on when all of it is gone. */
static void flush(int fd)
{
	struct conn *c = &conns[fd];
	ssize_t n = send(fd, c->rest + c->off, c->len - c->off, MSG_NOSIGNAL);
	if (n < 0) {
		if (errno != EAGAIN)
			drop(fd);
		return;
	}
	if ((c->off += n) == c->len) {
		free(c->rest);
		*c = (struct conn){ 0 };
		watch(fd, EPOLLIN);
	}
}

static void echo(int fd)
{
	static char buf[65536];
	ssize_t n = recv(fd, buf, sizeof buf, 0);
	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			drop(fd);
		return;
	}
	ssize_t sent = send(fd, buf, n, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN) {
		drop(fd);
		return;
	}
	if (sent < 0)
		sent = 0;
	if (sent < n) {
		struct conn *c = &conns[fd];
		c->len = n - sent;
		c->off = 0;
		c->rest = malloc(c->len);
		memcpy(c->rest, buf + sent, c->len);
		watch(fd, EPOLLOUT);
	}
}

int main(int argc, char **argv)
{
	int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(atoi(argv[1])) };
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(l, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 4096)) {
		perror("listen");
		return 1;
	}
	ep = epoll_create1(0);
	struct epoll_event e = { .events = EPOLLIN, .data.fd = l }, events[512];
	epoll_ctl(ep, EPOLL_CTL_ADD, l, &e);
	for (;;) {
		int n = epoll_wait(ep, events, 512, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == l) {
				int c;
				while ((c = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
					e = (struct epoll_event){ .events = EPOLLIN, .data.fd = c };
					epoll_ctl(ep, EPOLL_CTL_ADD, c, &e);
				}
			} else if (events[i].events & EPOLLOUT) {
				flush(fd);
			} else {
				echo(fd);
			}
		}
	}
}

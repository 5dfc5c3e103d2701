/* A bare io_uring echo server, the floor that an event loop is compared with:
 * one thread, multishot accept, multishot recv into provided buffers,
 * DEFER_TASKRUN, the receive buffer itself is sent back. One send is under way
 * per connection; what arrives meanwhile waits behind it in its buffer.
 *
 * usage: uring_floor PORT BUFFER_SIZE BUFFER_COUNT */
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { ACCEPT, RECV, SEND };

struct piece {
	int bid, len, off;
};

struct conn {
	int fd, sending, head, tail, armed, dead, starved;
	struct piece queue[256];
};

static struct io_uring ring;
static struct io_uring_buf_ring *br;
static char *pool;
static int size, count, mask, listener;
static struct conn *conns[1 << 16];
static int starving[1 << 16], nstarving;

static struct io_uring_sqe *sqe(void)
{
	struct io_uring_sqe *s = io_uring_get_sqe(&ring);
	if (!s) {
		io_uring_submit(&ring);
		s = io_uring_get_sqe(&ring);
	}
	return s;
}

static void tag(struct io_uring_sqe *s, int what, int fd)
{
	io_uring_sqe_set_data64(s, (unsigned long)what << 32 | fd);
}

static void arm_accept(void)
{
	struct io_uring_sqe *s = sqe();
	io_uring_prep_multishot_accept(s, listener, NULL, NULL, 0);
	tag(s, ACCEPT, listener);
}

static void arm_recv(struct conn *c)
{
	struct io_uring_sqe *s = sqe();
	io_uring_prep_recv_multishot(s, c->fd, NULL, 0, 0);
	s->flags |= IOSQE_BUFFER_SELECT;
	s->buf_group = 0;
	tag(s, RECV, c->fd);
	c->armed = 1;
}

static void recycle(int bid)
{
	io_uring_buf_ring_add(br, pool + (size_t)bid * size, size, bid, mask, 0);
	io_uring_buf_ring_advance(br, 1);
}

static void send_next(struct conn *c)
{
	if (c->sending || c->head == c->tail)
		return;
	struct piece *p = &c->queue[c->head & 255];
	struct io_uring_sqe *s = sqe();
	io_uring_prep_send(s, c->fd, pool + (size_t)p->bid * size + p->off, p->len - p->off, MSG_WAITALL | MSG_NOSIGNAL);
	tag(s, SEND, c->fd);
	c->sending = 1;
}

static void finish(struct conn *c)
{
	if (c->sending || c->armed)
		return;
	for (; c->head != c->tail; c->head++)
		recycle(c->queue[c->head & 255].bid);
	conns[c->fd] = NULL;
	close(c->fd);
	free(c);
}

static void on_recv(struct conn *c, struct io_uring_cqe *e)
{
	if (!(e->flags & IORING_CQE_F_MORE))
		c->armed = 0;
	if (e->res > 0) {
		int bid = e->flags >> IORING_CQE_BUFFER_SHIFT;
		c->queue[c->tail++ & 255] = (struct piece){ bid, e->res, 0 };
		send_next(c);
		if (!c->armed)
			arm_recv(c);
	} else if (e->res == -ENOBUFS) {
		if (!c->starved) {
			c->starved = 1;
			starving[nstarving++] = c->fd;
		}
	} else {
		c->dead = 1;
		finish(c);
	}
}

static void on_send(struct conn *c, int res)
{
	struct piece *p = &c->queue[c->head & 255];
	c->sending = 0;
	if (res > 0 && (p->off += res) < p->len) {
		send_next(c);
		return;
	}
	recycle(p->bid);
	c->head++;
	if (c->dead || res <= 0) {
		c->dead = 1;
		finish(c);
		return;
	}
	send_next(c);
}

static void rearm_starving(void)
{
	int n = nstarving;
	nstarving = 0;
	for (int i = 0; i < n; i++) {
		struct conn *c = conns[starving[i]];
		if (c && c->starved) {
			c->starved = 0;
			arm_recv(c);
		}
	}
}

int main(int argc, char **argv)
{
	int one = 1;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(atoi(argv[1])) };
	size = atoi(argv[2]);
	count = atoi(argv[3]);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 4096)) {
		perror("listen");
		return 1;
	}
	struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE, .cq_entries = 32768 };
	int r = io_uring_queue_init_params(4096, &ring, &p);
	if (r) {
		fprintf(stderr, "io_uring_queue_init: %s\n", strerror(-r));
		return 1;
	}
	pool = mmap(NULL, (size_t)size * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mask = io_uring_buf_ring_mask(count);
	if (posix_memalign((void **)&br, 4096, count * sizeof(struct io_uring_buf)))
		return 1;
	struct io_uring_buf_reg reg = { .ring_addr = (unsigned long)br, .ring_entries = count, .bgid = 0 };
	io_uring_buf_ring_init(br);
	if (io_uring_register_buf_ring(&ring, &reg, 0)) {
		fprintf(stderr, "buffer ring\n");
		return 1;
	}
	for (int i = 0; i < count; i++)
		recycle(i);
	arm_accept();
	for (;;) {
		io_uring_submit_and_wait(&ring, 1);
		struct io_uring_cqe *e;
		unsigned head, n = 0;
		io_uring_for_each_cqe(&ring, head, e) {
			n++;
			int what = e->user_data >> 32, fd = (int)e->user_data;
			if (what == ACCEPT) {
				if (e->res >= 0) {
					setsockopt(e->res, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
					struct conn *c = calloc(1, sizeof *c);
					c->fd = e->res;
					conns[c->fd] = c;
					arm_recv(c);
				}
				if (!(e->flags & IORING_CQE_F_MORE))
					arm_accept();
			} else if (what == RECV) {
				on_recv(conns[fd], e);
			} else {
				on_send(conns[fd], e->res);
			}
		}
		io_uring_cq_advance(&ring, n);
		if (nstarving)
			rearm_starving();
	}
}

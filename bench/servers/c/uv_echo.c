/* An echo server on libuv, with one hot buffer, that writes at once what can be
 * written at once.
 *
 * usage: uv_echo PORT */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

static char hot[65536];

static void give(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
	(void)h, (void)hint;
	*buf = uv_buf_init(hot, sizeof hot);
}

static void gone(uv_handle_t *h) { free(h); }

struct write {
	uv_write_t req;
	char data[];
};

static void written(uv_write_t *req, int status)
{
	(void)status;
	free(req);
}

static void got(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	if (n < 0) {
		uv_close((uv_handle_t *)s, gone);
		return;
	}
	if (n == 0)
		return;
	uv_buf_t out = uv_buf_init(buf->base, n);
	int sent = uv_try_write(s, &out, 1);
	if (sent < 0)
		sent = 0;
	if (sent < n) {
		struct write *w = malloc(sizeof *w + n - sent);
		for (ssize_t i = sent; i < n; i++)
			w->data[i - sent] = buf->base[i];
		out = uv_buf_init(w->data, n - sent);
		uv_write(&w->req, s, &out, 1, written);
	}
}

static void accepted(uv_stream_t *l, int status)
{
	if (status)
		return;
	uv_tcp_t *c = malloc(sizeof *c);
	uv_tcp_init(l->loop, c);
	if (uv_accept(l, (uv_stream_t *)c)) {
		uv_close((uv_handle_t *)c, gone);
		return;
	}
	uv_tcp_nodelay(c, 1);
	uv_read_start((uv_stream_t *)c, give, got);
}

int main(int argc, char **argv)
{
	uv_tcp_t l;
	struct sockaddr_in a;
	signal(SIGPIPE, SIG_IGN);
	uv_tcp_init(uv_default_loop(), &l);
	uv_ip4_addr("127.0.0.1", atoi(argv[1]), &a);
	uv_tcp_bind(&l, (struct sockaddr *)&a, 0);
	int r = uv_listen((uv_stream_t *)&l, 4096, accepted);
	if (r) {
		fprintf(stderr, "listen: %s\n", uv_strerror(r));
		return 1;
	}
	return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

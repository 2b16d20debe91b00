#!/usr/bin/env perl

# Sizes, numbers and slow clients: everything that a client controls has an end.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);
use Time::HiRes ();

my $gatewayd = fake_gatewayd(0);

sub metric
{
	my ($hashd, $name) = @_;
	return http('GET', $hashd->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

sub start
{
	my (%o) = @_;
	my $hashd = daemon('hashd', http => 1, %o);
	wait_for { metric($hashd, 'hashd_backend_up{backend="gatewayd.0"}') } 'gatewayd to be up';
	return $hashd;
}

subtest 'bodies over the limit' => sub {
	my $hashd = start(env => { MAX_BODY => '1MiB' });
	my $post = sub { return http('POST', $hashd->url . '/v1/embeddings', @_) };
	is $post->([], 'x' x (1 << 20))->{status}, 200, 'the largest';
	my $r = $post->([ 'Content-Length' => (1 << 20) + 1 ], '');
	is $r->{status}, 413, 'a declared length over it, before any byte';
	is json_decode($r->{body})->{error}{type}, 'invalid_request_error', 'OpenAI-shaped';
	my $chunk = sprintf "%x\r\n%s\r\n", 65536, 'x' x 65536;
	is $post->([ 'Transfer-Encoding' => 'chunked' ], $chunk x 17 . "0\r\n\r\n")->{status}, 413, 'chunked';
	is $post->([ map { ("X-H$_" => 'v' x 1000) } 1 .. 100 ], 'x')->{status}, 431, 'a head over its limit';
	is $post->([ map { ("X-H$_" => 'v') } 1 .. 130 ], 'x')->{status}, 431, 'too many fields';
	is $post->([ map { ("X-H$_" => 'v') } 1 .. 120 ], 'x')->{status}, 200, 'many fields';
	my $rpc = $hashd->rpc;
	my (undef, undef, $error) = $rpc->call_with_body('hash', [ mp_bin(''), JSON::PP::true ], 'y' x (1 << 20 | 1));
	is $error->[0], 1, 'over RPC too';
	like $error->[1], qr/body/, 'by name';
};

subtest 'a thousand at once' => sub {
	my $hashd = start();
	$gatewayd->mode(hold => JSON::PP::true);
	my $release = fork // die;
	if (!$release) {
		my $rpc = $gatewayd->rpc;
			$rpc->call('_wait', [ 'held', 1000 ]);
		$rpc->call('_release');
		POSIX::_exit(0);
	}
	my @r = http_many([ map { { url => $hashd->url, method => 'POST', target => '/v1/embeddings', body => "body $_" } } 1 .. 1000 ],
		connections => 1000);
	waitpid $release, 0;
	is scalar(grep { $_->{status} == 200 } @r), 1000, 'all answered';
	is scalar(grep { $r[ $_ - 1 ]{headers}{'x-body-hash'} eq sha256_hex("body $_") } 1 .. 1000), 1000, 'each its own';
	is metric($hashd, 'hashd_requests_in_flight'), 0, 'nothing left';
	is metric($hashd, 'hashd_buffered_body_bytes'), 0, 'no body kept';
};

subtest 'the body budget' => sub {
	my $hashd = start(env => { MAX_BODY => '4MiB', HASHD_BODY_BUDGET => '8MiB' });
	my $before = rss_kb($hashd->pid);
	$gatewayd->mode(hold => JSON::PP::true);
	my ($most, $held) = (0, 0);
	my $release = fork // die;
	if (!$release) {
		# The oldest gets through; the others wait half-way until it is answered.
		my $rpc = $gatewayd->rpc;
			$rpc->call('_wait', [ 'held', 1 ]);
		my $paused = EG::Test::until_true(sub { metric($hashd, 'hashd_paused_clients') }, 'paused clients');
		my $bytes = metric($hashd, 'hashd_buffered_body_bytes');
		spew(test_path('seen'), "$paused $bytes " . rss_kb($hashd->pid));
		$rpc->call('_release');
		POSIX::_exit(0);
	}
	my $body = 'b' x (4 << 20);
	my @r = http_many([ map { { url => $hashd->url, method => 'POST', target => '/v1/embeddings', body => $body } } 1 .. 20 ],
		connections => 20);
	waitpid $release, 0;
	is scalar(grep { $_->{status} == 200 } @r), 20, 'all answered in the end';
	is scalar(grep { $_->{headers}{'x-body-hash'} eq sha256_hex($body) } @r), 20, 'with the right hash';
	my ($paused, $bytes, $rss) = split ' ', slurp(test_path('seen'));
	cmp_ok $paused, '>', 5, 'clients were not read from meanwhile';
	cmp_ok $bytes, '<=', (8 << 20) + 2 * (4 << 20) + 20 * (16384 + 65536), 'bodies stayed within the budget';
	SKIP: {
		skip 'a sanitizer keeps freed memory', 1 if instrumented();
		cmp_ok $rss - $before, '<', 30_000, 'and memory did';
	}
	is metric($hashd, 'hashd_buffered_body_bytes'), 0, 'no body kept';
};

# Sends as much of it as the other side takes, until done says so; what is left comes back.
sub push_until
{
	my ($done, @pairs) = @_;    # [socket, bytes]
	wait_for {
		for my $pair (@pairs) {
			my $n = length $pair->[1] ? syswrite $pair->[0], $pair->[1], 1 << 18 : 0;
			substr($pair->[1], 0, $n, '') if $n;
		}
		$done->(\@pairs);
	} 'all that can be sent';
	return map { $_->[1] } @pairs;
}

subtest 'clients that keep the body budget to themselves' => sub {
	my $hashd = start(env => { MAX_BODY => '4MiB', HASHD_BODY_BUDGET => '8MiB', HASHD_BODY_TIMEOUT => '20s' });
	my $head = "POST /v1/embeddings HTTP/1.1\r\nHost: h\r\nContent-Length: " . (4 << 20) . "\r\n\r\n";
	my @c = map { EG::HTTP->new($hashd->url) } 1 .. 6;
	push_until(sub { metric($hashd, 'hashd_paused_clients') >= 3 }, map { [ $_->sock, $head . 'a' x ((4 << 20) - 1) ] } @c);
	my $t = Time::HiRes::time();
	is http('POST', $hashd->url . '/v1/embeddings', [], 'small')->{status}, 200, 'a small body is answered';
	is http('POST', $hashd->url . '/v1/embeddings', [], 'b' x 16000)->{status}, 200, 'and one of many texts';
	cmp_ok Time::HiRes::time() - $t, '<', instrumented() ? 10 : 1, 'at once';
	is http('POST', $hashd->url . '/v1/embeddings', [], 'c' x (4 << 20))->{status}, 200, 'a large one gets its turn';
	is $_->response->{status}, 408, 'who sends no more is told' for @c[ 0, 1 ];
	$_->close for @c;
	wait_for { metric($hashd, 'hashd_paused_clients') == 0 && metric($hashd, 'hashd_buffered_body_bytes') == 0 } 'nothing to be left';
	pass 'nothing is left';
};

subtest 'RPC peers that keep the body budget to themselves' => sub {
	my $hashd = start(env => {
		MAX_BODY => '4MiB', HASHD_BODY_BUDGET => '8MiB', HASHD_RPC_BODY_BUDGET => '8MiB', HASHD_BODY_TIMEOUT => '20s' });
	my @rpc = map { $hashd->rpc } 1 .. 6;
	my @id = map { $_->start('hash', [ mp_bin(''), JSON::PP::true ]) } @rpc;
	my @left = ((4 << 20) - 1) x @rpc;
	wait_for {
		for my $i (0 .. $#rpc) {
			my $m = eval { $rpc[$i]->message(0) } or next;
			next if $m->[0] != 2 || $m->[1] ne 'credit';
			my $n = $m->[2][1] < $left[$i] ? $m->[2][1] : $left[$i];
			$left[$i] -= $n;
			$rpc[$i]->notify('chunk', [ $id[$i], mp_bin('x' x $n), JSON::PP::false ]) if $n;
		}
		metric($hashd, 'hashd_paused_clients') >= 3;
	} 'the budget to be full';
	my $t = Time::HiRes::time();
	is http('POST', $hashd->url . '/v1/embeddings', [], 'c' x (4 << 20))->{status}, 200, 'a large body over HTTP is answered';
	is $hashd->rpc->call('hash', [ mp_bin('small'), JSON::PP::false ])->[0], sha256_hex('small'), 'a small one over RPC';
	cmp_ok Time::HiRes::time() - $t, '<', instrumented() ? 10 : 1, 'at once';
	my $large = 'y' x (4 << 20);
	my ($result) = $hashd->rpc->call_with_body('hash', [ mp_bin(''), JSON::PP::true ], $large);
	is $result->[0], sha256_hex($large), 'a large one over RPC gets its turn';
	is_deeply $rpc[0]->wait_for($id[0])->[2], [ 5, 'the body did not come in time' ], 'who sends no more is told';
	$_->close for @rpc;
	wait_for { metric($hashd, 'hashd_buffered_body_bytes') == 0 } 'nothing to be left';
	pass 'nothing is left';
};

subtest 'a client that does not read' => sub {
	my $hashd = start();
	my $before = rss_kb($hashd->pid);
	my $sent = $gatewayd->counters->{chunk_bytes_sent};
	my $size = 64 << 20;
	$gatewayd->mode(body_bytes => $size, times => 1);
	my $c = EG::HTTP->new($hashd->url, receive_buffer => 262144);
	$c->send(EG::HTTP::format_request('GET', '/large'));
	my ($last, $still) = (0, 0);
	wait_for {
		my $now = $gatewayd->counters->{chunk_bytes_sent} - $sent;
		$still = $now && $now == $last ? $still + 1 : 0;
		$last = $now;
		$still == 10;
	} 'gatewayd to be out of credit';
	cmp_ok $last, '<', 8 << 20, 'gatewayd is stopped by credit';
	SKIP: {
		skip 'a sanitizer keeps freed memory', 1 if instrumented();
		cmp_ok rss_kb($hashd->pid) - $before, '<', 8 << 10, 'and nothing piles up here';
	}
	is http('GET', $hashd->url . '/x')->{status}, 200, 'others are served meanwhile';
	my $r = $c->response;
	is length $r->{body}, $size, 'all of it comes when it reads';
	is sha256_hex($r->{body}), sha256_hex(substr join('', map { chr } 0 .. 250) x (1 + $size / 251), 0, $size), 'byte for byte';
};

subtest 'a client that shuts its side down' => sub {
	my $hashd = start();
	my $c = EG::HTTP->new($hashd->url);
	$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', [], 'complete'));
	shutdown $c->sock, 1;
	is $c->response->{status}, 200, 'is answered';
};

subtest 'a client that sends slowly' => sub {
	my $hashd = start(env => { HASHD_BODY_TIMEOUT => '100ms', HASHD_HEADER_TIMEOUT => '100ms' });
	my $c = EG::HTTP->new($hashd->url);
	$c->send("POST /v1/embeddings HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
	is $c->response->{status}, 408, 'a body that does not come';
	$c = EG::HTTP->new($hashd->url);
	$c->send("POST /v1/embed");
	is $c->response->{status}, 408, 'a head that does not come';
	is metric($hashd, 'hashd_buffered_body_bytes'), 0, 'no body kept';
};

subtest 'settings' => sub {
	my $run = sub {
		my ($env, @args) = @_;
		my $p = process('hashd', [ eg_bin('hashd'), @args ], env => $env, ready => 0, exit => qr/^(?:0|64|78)$/);
		return ($p->wait_exit >> 8, $p->log);
	};
	is [ $run->({}, '--check-config') ]->[0], 0, 'defaults are fine';
	my ($code, $log) = $run->({ HASHD_BODY_BUDGET => '1MiB' }, '--check-config');
	is $code, 78, 'a budget below one body';
	like $log, qr/HASHD_BODY_BUDGET/, 'is named';
	is [ $run->({}, '--no-such-flag') ]->[0], 64, 'an unknown flag';
};

done_testing;

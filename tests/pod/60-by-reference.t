#!/usr/bin/env perl

# Answers by reference through hashd, with clients of every speed, under eviction, and with either side
# killed: every byte that a client gets is right, and nothing stays behind.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;
use Digest::SHA qw(sha256_hex);

my $pod = EG::Pod->new(gatewayds => 1, env => { PROVIDER => 'mock', STORE => 'none', CACHE_SIZE => '64MiB',
	HASHD_ACCESS_LOG_SAMPLE => 0, HASHD_MIN_WRITE_RATE => 0, HASHD_WRITE_TIMEOUT => '600s', PURGE_TOKEN => 'sweep' });
my ($hashd, $gatewayd) = ($pod->hashd, $pod->gatewayd(0));
# A large answer is about 4.2 MB of text: more than the kernel's socket buffers take in.
my @elements = map { my $i = $_; join ' ', map { 'w' . ($i * 7 + $_ * 13) } 1 .. 300 } 1 .. 64;

sub metric
{
	my ($of, $name) = @_;
	return http('GET', $of->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}
sub nothing_left
{
	wait_for { metric($hashd, 'hashd_leases') == 0 } 'hashd to be done';
	wait_for { metric($gatewayd, 'gatewayd_leases') == 0 && metric($gatewayd, 'gatewayd_lent_bytes') == 0 } 'leases back';
	return pass 'nothing is lent';
}

# The mock's vectors depend on the text alone: an answer that was whole once says what it is for ever.
my %digest;
sub request
{
	my ($n, %o) = @_;
	my $body = json_encode({ model => 'text-embedding-3-small', input => "text $n", encoding_format => 'float', %o });
	return { url => $pod->url, method => 'POST', target => '/v1/embeddings', headers => [ 'Content-Type' => 'application/json' ],
		body => $body, name => $body };
}
sub right
{
	my ($request, $r) = @_;
	return 0 if $r->{status} != 200;
	my $digest = sha256_hex($r->{body});
	return ($digest{ $request->{name} } //= $digest) eq $digest;
}

# A client that sends its request and reads as far as it is told, with a small window.
sub slow_client
{
	my ($request) = @_;
	my $c = IO::Socket::INET->new(Proto => 'tcp') // die $!;
	setsockopt $c, Socket::SOL_SOCKET(), Socket::SO_RCVBUF(), 4096;
	connect $c, Socket::pack_sockaddr_in($hashd->port, Socket::INADDR_LOOPBACK()) or die $!;
	syswrite $c, "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
		. "Connection: close\r\nContent-Length: " . length($request->{body}) . "\r\n\r\n$request->{body}";
	return { sock => $c, request => $request, got => '' };
}
sub read_some { my ($c, $n) = @_; return sysread $c->{sock}, $c->{got}, $n, length $c->{got} }
sub read_all { my ($c) = @_; 1 while read_some($c, 1 << 20); return $c->{got} }
sub right_slow
{
	my ($c) = @_;
	my ($head, $body) = split /\r\n\r\n/, read_all($c), 2;
	return 0 if !defined $body;
	my ($length) = $head =~ /^Content-Length: (\d+)/mi;
	return defined $length && length $body == $length
		&& right($c->{request}, { status => $head =~ m{^HTTP/1.1 (\d+)} ? $1 : 0, body => $body });
}

sub large { my ($n) = @_; return request($n, model => 'text-embedding-3-large', input => [ @elements[ 1 .. 63 ], "$n $elements[0]" ]) }

subtest 'by reference' => sub {
	my $r = http_many([ request(1) ]);
	my $granted = metric($gatewayd, 'gatewayd_leases_granted_total');
	is scalar(grep { right(request(1), $_) } http_many([ map { request(1) } 1 .. 200 ], connections => 16)), 200, 'right';
	is metric($gatewayd, 'gatewayd_leases_granted_total'), $granted + 200, 'all of them lent';
	cmp_ok metric($hashd, 'hashd_mapped_bytes'), '>=', 64 << 20, 'the arena is mapped';
	nothing_left();
};

subtest 'slow clients while everything else is evicted, and purged' => sub {
	my @requests = map { large($_) } 1 .. 4;
	right($_, http_many([$_])) for @requests;
	is scalar(keys %digest), 5, 'known';
	my @slow = map { slow_client($_) } @requests;
	cmp_ok read_some($_, 1000), '>', 0, 'begins' for @slow;
	wait_for { metric($hashd, 'hashd_leases') >= 3 } 'leases to be out';
	my $evictions = metric($gatewayd, 'gatewayd_cache_evictions_total');
	for my $round (1 .. 3) {
		my @others = map { large($round * 1000 + $_) } 1 .. 14;
		# A whole answer is kept from the second time on.
		is scalar(grep { $_->{status} == 200 } http_many([ @others, @others ], connections => 2)), 28, 'others are served';
		read_some($_, 20_000) for @slow;
	}
	cmp_ok metric($gatewayd, 'gatewayd_cache_evictions_total'), '>', $evictions + 30, 'much has gone from the cache';
	is http('PURGE', $gatewayd->url . '/', [ Authorization => 'Bearer sweep', 'X-Purge-All' => 'true' ])->{status}, 200, 'a purge of all';
	is scalar(grep { ($_->{headers}{'x-cache'} // '') =~ /^(?:MISS|PARTIAL)\z/ } http_many([ map { large(3000 + $_) } 1 .. 14 ], connections => 2)), 14,
		'whose room is used again';
	cmp_ok metric($hashd, 'hashd_leases'), '>=', 3, 'still out';
	is scalar(grep { right_slow($_) } @slow), 4, 'each gets its own bytes';
	nothing_left();
};

subtest 'clients that leave in the middle' => sub {
	my @slow = map { slow_client(large($_ % 4 + 1)) } 1 .. 12;
	read_some($_, 500) for @slow;
	close $_->{sock} for @slow;
	nothing_left();
};

subtest 'more slow clients than may be lent to' => sub {
	my @slow = map { slow_client(large($_)) } 1 .. 12;
	read_some($_, 1) for @slow;
	cmp_ok metric($gatewayd, 'gatewayd_leases_refused_total'), '>', 0, 'some go in chunks';
	cmp_ok metric($gatewayd, 'gatewayd_lent_bytes'), '<', 45 << 20, 'lent bytes are bounded';
	is scalar(grep { right(request(2), $_) } http_many([ map { request(2) } 1 .. 50 ], connections => 4)), 50, 'others are served';
	my $good = grep { right_slow($_) } @slow;
	my $reset = metric($gatewayd, 'gatewayd_slow_answers_reset_total');
	cmp_ok $good + $reset, '>=', 12, 'right, or reset for room';
	nothing_left();
};

subtest 'gatewayd is killed while clients read' => sub {
	for my $round (1 .. 3) {
		$pod->wait_up;
		my @requests = map { large($_) } 1 .. 3;
		right($_, http_many([$_])) for @requests;
		my @slow = map { slow_client($_) } @requests;
		read_some($_, 5000) for @slow;
		wait_for { metric($hashd, 'hashd_leases') >= 2 } 'leases to be out';
		my $lent = metric($hashd, 'hashd_leases');
		$gatewayd->kill9->start;
		$pod->wait_up;
		is metric($hashd, 'hashd_leases'), $lent, 'what was lent is still there';
		cmp_ok metric($hashd, 'hashd_mapped_bytes'), '>=', 128 << 20, 'the old memory beside the new';
		is scalar(grep { $_->{status} == 200 } http_many([ map { request($_) } 1 .. 100 ], connections => 4)), 100, 'the new one serves';
		cmp_ok scalar(grep { right_slow($_) } @slow), '>=', $lent, 'and whole';
		nothing_left();
		wait_for { metric($hashd, 'hashd_mapped_bytes') < 100 << 20 } 'the old memory to be unmapped';
	}
};

subtest 'hashd is killed while clients read' => sub {
	for my $round (1 .. 3) {
		my @slow = map { slow_client(large($_)) } 1 .. 4;
		read_some($_, 5000) for @slow;
		wait_for { metric($gatewayd, 'gatewayd_leases') >= 3 } 'leases to be out';
		$hashd->kill9;
		wait_for { metric($gatewayd, 'gatewayd_leases') == 0 } 'EOF to end them';
		is metric($gatewayd, 'gatewayd_lent_bytes'), 0, 'nothing lent';
		$hashd->start;
		$pod->wait_up;
		ok right(request(1), http_many([ request(1) ])), 'goes on';
	}
};

subtest 'under load, with both killed at any moment' => sub {
	for my $victim ($gatewayd, $hashd, $gatewayd) {
		my @requests = map { request($_ % 40) } 1 .. 1500;
		my @r = http_many(\@requests, connections => 24, on_done => sub {
			return if $_[0] != 400;
			$victim->kill9->start;
			$victim->wait_ready if $victim->can('wait_ready');
		});
		my $wrong = grep { $r[$_]{status} && $r[$_]{status} == 200 && !$r[$_]{error} && !right($requests[$_], $r[$_]) } 0 .. $#r;
		is $wrong, 0, 'no answer is wrong';
		$pod->wait_up;
		nothing_left();
	}
};

subtest 'a peer of hashd gets bytes' => sub {
	my $body = request(3)->{body};
	my ($direct) = http_many([ request(3) ]);
	my ($r, $data) = $hashd->rpc->call_with_body('request', [ 'POST', '/v1/embeddings',
		[ [ host => 'x' ], [ 'content-type' => 'application/json' ] ], mp_bin($body), '', '', '' ], undef, sub { $_[0][3] });
	is $r->[0], 200, 'answered';
	is $r->[5] // 0, 0, 'no lease';
	is $data // $r->[2], $direct->{body}, 'the same bytes';
	$body = large(1)->{body};
	($r, $data) = $hashd->rpc->call_with_body('request', [ 'POST', '/v1/embeddings',
		[ [ host => 'x' ], [ 'content-type' => 'application/json' ] ], mp_bin($body), '', '', '' ], undef, sub { $_[0][3] });
	ok right(large(1), { status => $r->[0], body => $data }), 'a large answer too';
	is $r->[4], length $data, 'of the length that it said';
	my $rpc = $hashd->rpc;
	$rpc->start('request', [ 'POST', '/v1/embeddings', [ [ host => 'x' ], [ 'content-type' => 'application/json' ] ], mp_bin($body), '', '', '' ]);
	$rpc->message;
	$rpc->close;
	nothing_left();
};

done_testing;

#!/usr/bin/env perl

# Answers by reference, seen by peers of every kind: those that did not attach, those that give back
# what they must, and those that break the rules.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);

my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock',
	env => { PROVIDER => 'mock', STORE => 'none', CACHE_SIZE => '8MiB', LAMEDUCK => '100ms' });
my ($LEASE, $OFFSET, $LENGTH) = (5, 6, 7); # of a result
my $QUARTER = 2 << 20;

sub metric { return http('GET', $d->url . '/metrics')->{body} =~ /^\Qgatewayd_$_[0]\E (\S+)$/m ? $1 : undef }
sub settle { my ($name, $value) = @_; wait_for { metric($name) == $value } "gatewayd_$name $value"; return pass "$name is $value" }

sub body { my ($text, %o) = @_; return json_encode({ model => 'text-embedding-3-small', input => $text, %o }) }

sub over_http { return http('POST', $d->url . '/v1/embeddings', [ 'Content-Type' => 'application/json' ], $_[0]) }

sub params
{
	my ($body) = @_;
	return [ 'POST', '/v1/embeddings', [ [ 'host', 'x' ], [ 'content-type', 'application/json' ] ], mp_bin($body),
		sha256_hex($body), 'test', '', JSON::PP::false(), length $body ];
}
sub ask { my ($rpc, $body) = @_; return $rpc->call('request', params($body)) }
sub whole { my ($rpc, $body) = @_; my ($r, $data) = $rpc->call_with_body('request', params($body), undef, sub { $_[0][3] }); return $data // $r->[2] }
sub attached { my $rpc = $d->rpc; $rpc->{arena} = $rpc->call('attach')->[0]; return $rpc }
sub release { my ($rpc, @leases) = @_; return $rpc->notify('release', [ \@leases ]) }

# The peer is cut off: it reads EOF, at once.
sub cut_off
{
	my ($rpc, $what) = @_;
	my $m = eval { 1 while $rpc->message; 1 };
	return ok $m, "$what: cut off";
}

my $direct = over_http(body('hello'));
is $direct->{status}, 200, 'over HTTP';

subtest 'strangers get bytes' => sub {
	my $rpc = $d->rpc;
	my $r = ask($rpc, body('hello'));
	is $r->[0], 200, 'answered';
	is $r->[$LEASE] // 0, 0, 'no lease';
	is $r->[2], $direct->{body}, 'the body is there';
	is whole($rpc, body('hello', encoding_format => 'float')), over_http(body('hello', encoding_format => 'float'))->{body},
		'a larger one in chunks';
	release($rpc, 12345);
	is ask($rpc, body('hello'))->[0], 200, 'release means nothing to it';
};

subtest 'attach, lease, release' => sub {
	my $rpc = attached();
	is $rpc->{arena}, 4 * $QUARTER, 'size of the arena';
	settle(lease_peers => 1);
	my $r = ask($rpc, body('hello'));
	ok $r->[$LEASE], 'a lease';
	is length $r->[2], 0, 'no bytes';
	is $r->[$LENGTH], length $direct->{body}, 'length';
	cmp_ok $r->[$OFFSET] + $r->[$LENGTH], '<=', $rpc->{arena}, 'within the arena';
	my $again = ask($rpc, body('hello'));
	isnt $again->[$LEASE], $r->[$LEASE], 'each answer has its own';
	is $again->[$OFFSET], $r->[$OFFSET], 'of the same bytes';
	settle(leases => 2);
	cmp_ok metric('lent_bytes'), '<', 2 * length $direct->{body}, 'an object counts once';
	release($rpc, $again->[$LEASE]);
	settle(leases => 1);
	release($rpc, $r->[$LEASE]);
	settle(leases => 0);
	is metric('lent_bytes'), 0, 'nothing lent';
	my $fresh = ask($rpc, body('never seen'));
	ok $fresh->[$LEASE], 'a miss goes by reference too';
	my $small = ask($rpc, body('hello', dimensions => 8));
	is $small->[$LEASE] // 0, 0, 'a small answer does not';
	release($rpc, $fresh->[$LEASE]);
	settle(leases => 0);
};

subtest 'EOF ends leases' => sub {
	my $rpc = attached();
	ask($rpc, body("text $_")) for 1 .. 20;
	settle(leases => 20);
	$rpc->close;
	settle(leases => 0);
	is metric('lent_bytes'), 0, 'nothing lent';
};

subtest 'leased bytes stay, whatever comes' => sub {
	my $rpc = attached();
	my @held = map { ask($rpc, body("held $_")) } 1 .. 10;
	my %taken = map { $_->[$OFFSET] => 1 } @held;
	my $evictions = metric('cache_evictions_total');
	http_many([ map { { url => $d->url, method => 'POST', target => '/v1/embeddings',
		headers => [ 'Content-Type' => 'application/json' ], body => body("filler $_") } } 1 .. 1200 ], connections => 8);
	cmp_ok metric('cache_evictions_total'), '>', $evictions + 100, 'much was evicted';
	my @others = map { ask($rpc, body("other $_")) } 1 .. 50;
	is scalar(grep { $taken{ $_->[$OFFSET] } } grep { $_->[$LEASE] } @others), 0, 'no other answer lies where one is held';
	is metric('leases'), scalar(@held) + grep({ $_->[$LEASE] } @others), 'all are held';
	release($rpc, map { $_->[$LEASE] } grep { $_->[$LEASE] } @held, @others);
	settle(leases => 0);
	is metric('lent_bytes'), 0, 'nothing lent';
};

subtest 'what is lent is bounded' => sub {
	my $rpc = attached();
	my $refused = metric('leases_refused_total');
	my (@leases, $chunked);
	for my $i (1 .. 400) {
		my $r = ask($rpc, body("much $i"));
		$r->[$LEASE] ? push @leases, $r->[$LEASE] : ++$chunked && last;
	}
	ok $chunked, 'then an answer comes without a lease';
	cmp_ok metric('lent_bytes'), '<', $QUARTER + 65536, 'a quarter of the arena is lent';
	cmp_ok metric('lent_bytes'), '>', $QUARTER / 2, 'not much less';
	is metric('leases_refused_total'), $refused + 1, 'counted';
	my $other = attached();
	is ask($other, body('hello'))->[$LEASE] // 0, 0, 'the bound is for all peers together';
	release($rpc, $_) for splice @leases, 0, 20;
	wait_for { ask($other, body('hello'))->[$LEASE] } 'leases again';
	pass 'leases again';
	$_->close for $rpc, $other;
	settle(leases => 0);
};

subtest 'slow readers of chunks are reset when too much is lent' => sub {
	my $rpc = attached();
	my $reset = metric('slow_answers_reset_total');
	# Each of these waits for credit after 256 KiB; none is given.
	# (Many words, so that few numbers are a short 0.)
	my @big = map { my $n = $_; body([ map { my $text = $_; join ' ', map { "word$_ of $text" } 1 .. 60 } 1 .. 18 ], encoding_format => 'float', dimensions => 1536 - $n) } 1 .. 7;
	whole($d->rpc, $_) for @big, @big; # kept from the second time on
	cmp_ok length whole($d->rpc, $_), '>', 400_000, 'longer than the credit' for @big;
	my @leases;
	for my $i (1 .. 400) {
		my $r = ask($rpc, body("more $i"));
		push @leases, $r->[$LEASE] // last;
		last if !$r->[$LEASE];
	}
	my $slow = $d->rpc;
	my @ids = map { $slow->start('request', params($_)) } @big;
	my ($cancelled, %answered, @seen);
	while (keys %answered < @ids) {
		my $m = $slow->message // last;
		$answered{ $m->[1] } = 1 if $m->[0] == 1;
		push @seen, $m->[0] == 2 ? $m->[1] : ref $m->[2] ? "error @{ $m->[2] }" : 'answer';
		$cancelled = 1 if $m->[0] == 2 && $m->[1] eq 'cancel';
	}
	is scalar(keys %answered), scalar(@ids), 'all are begun';
	cmp_ok metric('lent_bytes'), '<', 3 * $QUARTER, 'lent bytes stay bounded';
	cmp_ok metric('slow_answers_reset_total'), '>', $reset, 'by giving up slow answers';
	diag "@seen" if !$cancelled;
	ok $cancelled, 'whose peer is told so';
	is http('GET', $d->url . '/healthz')->{status}, 200, 'alive';
	$_->close for $rpc, $slow;
	settle(leases => 0);
	settle(lent_bytes => 0);
};

subtest 'wrong leases' => sub {
	my %wrong = (
		'a lease that never was' => sub { my ($rpc, $r) = @_; release($rpc, 1 << 20 | 999) },
		'lease 0' => sub { my ($rpc, $r) = @_; release($rpc, 0) },
		'the largest number' => sub { my ($rpc, $r) = @_; $rpc->send_raw("\x93\x02\xa7release\x91\x91\xcf" . "\xff" x 8) },
		'twice in one message' => sub { my ($rpc, $r) = @_; release($rpc, ($r->[$LEASE]) x 2) },
		'twice' => sub { my ($rpc, $r) = @_; release($rpc, $r->[$LEASE]) for 1, 2 },
		'an old one, of a place in use again' => sub {
			my ($rpc, $r) = @_;
			release($rpc, $r->[$LEASE]);
			ask($rpc, body('hello'));
			release($rpc, $r->[$LEASE]);
		},
		'not a list' => sub { my ($rpc) = @_; $rpc->notify('release', [ 'x' ]) },
		'a negative number' => sub { my ($rpc) = @_; $rpc->notify('release', [ [ mp_int(-1) ] ]) },
		'more than a message may hold' => sub { my ($rpc, $r) = @_; release($rpc, ($r->[$LEASE]) x 1025) },
	);
	for my $name (sort keys %wrong) {
		my $before = metric('lease_cut_offs_total');
		my $rpc = attached();
		my $r = ask($rpc, body('hello'));
		my $kept = ask($rpc, body('kept'));
		$wrong{$name}->($rpc, $r);
		cut_off($rpc, $name);
		is metric('lease_cut_offs_total'), $before + 1, 'counted';
		cmp_ok metric('leases'), '>=', 1, 'its leases stay while its end is open';
		$rpc->close;
		settle(leases => 0);
	}
	my ($one, $two) = (attached(), attached());
	my $of_one = ask($one, body('a'));
	my $of_two = ask($two, body('b'));
	ask($two, body('c')), my $last = ask($two, body('d'));
	release($one, $last->[$LEASE]);
	cut_off($one, 'the lease of another connection');
	is metric('leases'), 4, 'nobody lost any';
	is ask($two, body('b'))->[0], 200, 'the other one is served';
	$_->close for $one, $two;
	settle(leases => 0);
};

subtest 'attach at the wrong time' => sub {
	my $rpc = attached();
	ask($rpc, body('hello'));
	my $id = $rpc->start('attach');
	cut_off($rpc, 'twice');
	settle(leases => 1);
	$rpc->close;
	settle(leases => 0);
	for ([ request => params(body('hello')) ], [ ping => [] ], [ 'no such thing' => [] ]) {
		my $late = $d->rpc;
		$late->try_call(@$_);
		$late->start('attach');
		cut_off($late, "after $_->[0]");
	}
	my $notified = $d->rpc;
	$notified->notify('release', [ [] ]);
	$notified->start('attach');
	cut_off($notified, 'after a notification');
	settle(lease_peers => 0);
};

subtest 'cut off with requests under way' => sub {
	my $rpc = attached();
	my @r = map { ask($rpc, body("under way $_")) } 1 .. 3;
	$rpc->start('request', params(body("later $_"))) for 1 .. 50;
	release($rpc, 77);
	cut_off($rpc, 'in the middle');
	cmp_ok metric('leases'), '>=', 3, 'leases stay';
	# It may go on talking, to nobody.
	eval { $rpc->send_raw("\x93\x02\xa7release\x91\x91\x01" x 1000) };
	is ask(attached(), body('hello'))->[0], 200, 'others are served';
	$rpc->close;
	settle(leases => 0);
};

subtest 'stops while leases are out' => sub {
	my $rpc = attached();
	ask($rpc, body("last $_")) for 1 .. 5;
	$d->signal('TERM');
	wait_for { !$rpc->call('ping')->[5] } 'it to be about to stop';
	my $r = ask($rpc, body('last of all'));
	is $r->[0], 200, 'still served';
	$rpc->close;
	$d->wait_exit;
	pass 'ends';
};

done_testing;

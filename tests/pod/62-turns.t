#!/usr/bin/env perl

# The largest bodies there are, of every shape that costs: no turn of the loop of hashd or gatewayd, and
# so no callback, uses more than 5 ms of its thread's processor time.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;

my $MEASURED = !instrumented();
my $BODY = 32 << 20;

my %env = (PROVIDER => 'mock', STORE => 'none');
my $pod = EG::Pod->new(gatewayds => 1, env => \%env);

# What stands around `input`, and the input filled up to the largest body.
sub body
{
	my ($open, $piece, $close) = @_;
	my $before = '{"model":"text-embedding-3-small","dimensions":8,"input":' . $open;
	my $n = length $piece ? int(($BODY - length($before) - length($close) - 64) / length $piece) : 0;
	return $before . $piece x $n . $close;
}

# Hardly a word: the mock takes seconds for 32 MiB of them, on its own thread.
my ($texts, $ids) = ('- ,.; ' x 2660, ',7654' x 1600);
my @kinds = (
	[ 'one text', 200 => sub { body('"a', ' .; -', '"}') } ],
	[ 'two thousand texts', 200 => sub { body('["last"', '', join('', map { qq(,"$_ $texts") } 1 .. 2040) . ']}') } ],
	[ 'lists of token ids', 200 => sub { body('[[1]', '', join('', map { ",[$_$ids]" } 1 .. 2040) . ']}') } ],
	[ 'sixteen thousand texts', 200 => sub { '{"model":"m","dimensions":8,"input":[' . join(',', map { qq("t $_") } 1 .. 16384) . ']}' } ],
	[ 'and again, from memory', 200 => sub { '{"model":"m","dimensions":8,"input": [' . join(',', map { qq("t $_") } 1 .. 16384) . ']}' } ],
	[ 'texts beyond the number', 400 => sub { body('["a"', ',"a"', ']}') } ],
	[ 'nested too deep', 400 => sub { body('', '[', '') } ],
);
for (@kinds) {
	my ($name, $status, $make) = @$_;
	my $body = $make->();
	my ($r) = http_many([ { url => $pod->url, method => 'POST', target => '/v1/embeddings', body => $body,
		headers => [ 'Content-Type' => 'application/json', Authorization => 'Bearer sk-pod' ] } ]);
	is $r->{status}, $status, $name or diag substr $r->{body} // $r->{error}, 0, 300;
}

# The clock of a thread also counts what a busy machine does beside it, rarely 100 ms: so a few long turns
# are none of ours. What is ours comes with every body: to copy 32 MiB or to free it takes 10 to 100 ms.
for my $daemon (0, 1) {
	my $turns = ($pod->turns)[$daemon];
	my $name = (qw(hashd gatewayd))[$daemon];
	note sprintf '%s: longest %.1f ms, %d over 5 ms, %d over 20 ms', $name, @$turns{qw(ms long stuck)};
	next if !$MEASURED;
	cmp_ok $turns->{long}, '<', @kinds, "$name: turns of more than 5 ms";
	cmp_ok $turns->{stuck}, '<', 3, "$name: turns of more than 20 ms";
}

# A text that belongs to another instance goes there from where it lies.
subtest 'texts of other instances' => sub {
	my $texts = 12;
	my $two = EG::Pod->new(gatewayds => 2, env => \%env);
	for my $i (1 .. $texts) {
		my ($r) = http_many([ { url => $two->url, method => 'POST', target => '/v1/embeddings', body => body(qq("$i), ' .; -', '"}'),
			headers => [ 'Content-Type' => 'application/json', Authorization => 'Bearer sk-pod' ] } ]);
		is $r->{status}, 200, "text $i" or diag substr $r->{body} // $r->{error}, 0, 300;
	}
	my (undef, @turns) = $two->turns;
	my ($long, $longest) = (0, 0);
	for (@turns) {
		$long += $_->{long} + $_->{preempted};
		$longest = $_->{ms} if $_->{ms} > $longest;
	}
	note sprintf 'longest %.1f ms, %d over 5 ms', $longest, $long;
	# About half of them belong to the other one. Those that lost the processor count, too: to copy 32 MiB is long
	# enough for that.
	cmp_ok $long, '<', 4, 'turns of more than 5 ms' if $MEASURED;
};

done_testing;

#!/usr/bin/env perl

# Batches of 2,048 texts with 1,536 dimensions each, bought whole, as base64 and as numbers, then read from the
# store: whatever part the answers of 17 and 45 MB have in it, no turn of the loop of hashd or gatewayd, and so
# no callback, uses more than 5 ms of its thread's processor time.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;

my $MEASURED = !instrumented();
use constant N => 2048;

my $pod = EG::Pod->new(gatewayds => 1, env => { CACHE_SIZE => '512MB' });
my $batches = 0;

sub ask
{
	my ($name, $format, $first) = @_;
	my $body = json_encode({ model => 'text-embedding-3-small', encoding_format => $format, input => [ map { "chunk $_ of a document" } $first .. $first + N - 1 ] });
	my $r = http('POST', $pod->url . '/v1/embeddings', [ 'Content-Type' => 'application/json', Authorization => 'Bearer sk-pod' ], $body);
	is $r->{status}, 200, $name;
	cmp_ok length $r->{body}, '>', N * 1536 * 5, "$name: the vectors are there";
	$batches++;
	return;
}

# The clock of a thread also counts what a busy machine does beside it: so a few long turns are none of ours. What
# is ours comes with every batch.
sub no_long_turns
{
	my ($what) = @_;
	my @turns = $pod->turns;
	for my $daemon (0, 1) {
		my ($name, $turns) = ((qw(hashd gatewayd))[$daemon], $turns[$daemon]);
		note sprintf '%s: %s: longest %.1f ms, %d over 5 ms, %d over 20 ms', $what, $name, @$turns{qw(ms long stuck)};
		next if !$MEASURED;
		cmp_ok $turns->{long}, '<', $batches, "$what: $name: turns of more than 5 ms";
		cmp_ok $turns->{stuck}, '<', 2, "$what: $name: turns of more than 20 ms";
	}
	$batches = 0;
	return;
}

ask("bought as base64, $_", 'base64', $_ * N) for 0 .. 2;
ask("bought as numbers, $_", 'float', $_ * N) for 3 .. 4;
no_long_turns('bought');
wait_for { http('GET', $pod->gatewayd(0)->url . '/metrics')->{body} =~ /^gatewayd_store_puts_pending\S* 0$/m } 'all is stored';
$pod->restart;
ask("stored, $_", 'base64', $_ * N) for 0 .. 3;
no_long_turns('stored');
is $pod->openai->calls, 5, 'each was bought once';

done_testing;

#!/usr/bin/env perl

# What gatewayd says its cache uses is what the process grew by: its own memory and the arena, together.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

plan(skip_all => 'memory of an instrumented build is not the product\'s') if instrumented();
my $d = daemon('gatewayd', http => 1, env => { PROVIDER => 'mock', STORE => 'none', CACHE_SIZE => '64MiB' });

# Pages that nobody else maps: anonymous ones, and those of the two arenas.
sub own_kb
{
	my ($kb, $text) = (0, slurp('/proc/' . $d->pid . '/smaps_rollup'));
	$kb += $1 while $text =~ /^Private_(?:Clean|Dirty):\s+(\d+) kB/mg;
	return $kb;
}
sub used_kb { return http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_cache_used_bytes (\S+)$/m ? $1 / 1024 : undef }

my $next = 0;
sub ask
{
	my ($n, %o) = @_;
	my @r = http_many([ map { { url => $d->url, method => 'POST', target => '/v1/embeddings', headers => [ 'Content-Type' => 'application/json' ],
		body => json_encode({ model => 'text-embedding-3-small', input => 'text ' . $next++, encoding_format => 'base64', %o }) } } 1 .. $n ],
		connections => 16);
	return scalar grep { $_->{status} == 200 } @r;
}

is ask(300), 300, 'everything was used once';
for my $kind ([ 4000, 'of 8 KB each' ], [ 6000, 'of 1.4 KB each', dimensions => 256 ]) {
	my ($n, $name, @parameters) = @$kind;
	my ($own, $used) = (own_kb(), used_kb());
	is ask($n, @parameters), $n, "$n texts $name";
	my ($grew, $told) = (own_kb() - $own, used_kb() - $used);
	cmp_ok abs($grew / $told - 1), '<', 0.1, sprintf 'grew by %d kB, told %d kB', $grew, $told;
}
ok ask(4000), 'more than fits';
cmp_ok used_kb(), '<=', 65536, 'told: within the budget';
cmp_ok own_kb(), '<', 65536 * 1.1 + 8192, 'and the process is';

done_testing;

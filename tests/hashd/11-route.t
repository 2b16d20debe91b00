#!/usr/bin/env perl

# Sticky routing: the body decides, every hashd agrees, one instance lost moves its own keys only.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

use constant KEYS => 300;

my @gatewayd = map { fake_gatewayd($_) } 0 .. 2;
my @hashd = map { daemon('hashd', http => 1, env => { GATEWAYD_INSTANCES => 3 }) } 1 .. 2;

sub up
{
	my ($hashd, $n) = @_;
	wait_for { (() = http('GET', $hashd->url . '/metrics')->{body} =~ /^hashd_backend_up\{[^}]*\} 1$/mg) == $n } "$n gatewayd up";
	return;
}

sub where
{
	my ($hashd) = @_;
	my @r = http_many([ map { { url => $hashd->url, method => 'POST', target => '/v1/embeddings', body => "key $_" } } 1 .. KEYS ],
		connections => 20);
	return map { $_->{status} == 200 ? json_decode($_->{body})->{instance} : "status $_->{status}" } @r;
}

up($_, 3) for @hashd;
my @first = where($hashd[0]);
my %share;
$share{$_}++ for @first;
is join(' ', sort keys %share), 'gatewayd.0 gatewayd.1 gatewayd.2', 'all instances are used';
cmp_ok $share{$_}, '>', KEYS / 6, "$_ has its share" for sort keys %share;
is_deeply [ where($hashd[0]) ], \@first, 'the same body, the same instance';
is_deeply [ where($hashd[1]) ], \@first, 'for every hashd';

# Requests without a body go by their URL.
my %seen;
$seen{ json_decode(http('GET', $hashd[0]->url . '/v1/models')->{body})->{instance} }++ for 1 .. 20;
is scalar keys %seen, 1, 'a URL stays with its instance';
%seen = ();
$seen{ json_decode(http('GET', $hashd[0]->url . "/v1/models?$_")->{body})->{instance} }++ for 1 .. 40;
is scalar keys %seen, 3, 'other URLs go elsewhere';

$gatewayd[1]->kill9;
up($hashd[0], 2);
my @without = where($hashd[0]);
my $moved = grep { $first[$_] ne 'gatewayd.1' && $without[$_] ne $first[$_] } 0 .. KEYS - 1;
is $moved, 0, 'only the keys of the lost instance move';
my %heirs;
$first[$_] eq 'gatewayd.1' and $heirs{ $without[$_] }++ for 0 .. KEYS - 1;
is join(' ', sort keys %heirs), 'gatewayd.0 gatewayd.2', 'to all of the others';
like http('GET', $hashd[0]->url . '/metrics')->{body}, qr/^hashd_rerouted_total [1-9]/m, 'and are counted';

$gatewayd[1]->start;
up($hashd[0], 3);
is_deeply [ where($hashd[0]) ], \@first, 'and come back with it';

# A list of sockets instead of a number.
my $listed = daemon('hashd', http => 1, env => { HASHD_BACKENDS => join ',', map { $_->rpc_path } @gatewayd[ 0, 2 ] });
up($listed, 2);
%seen = ();
$seen{$_}++ for where($listed);
is join(' ', sort keys %seen), 'gatewayd.0 gatewayd.2', 'HASHD_BACKENDS';

done_testing;
